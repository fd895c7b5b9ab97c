/// The weights that an optimiser has to touch, as strided runs of the flat buffers.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/shape.hpp"

namespace kd::inline KD_ABI::optim {

/// `count` runs of `run` elements, the i-th of which begins at begin + i * stride; runs do not overlap.
struct live_runs {
  std::size_t begin = 0, run = 0, stride = 0, count = 1;

  constexpr std::size_t size() const { return run * count; }
  friend constexpr bool operator==(const live_runs&, const live_runs&) = default;
};

/// A few groups of runs, of a size known to the compiler.
struct live_run_list {
  static constexpr std::size_t capacity = 16;

  std::array<live_runs, capacity> groups{};
  std::size_t used = 0;

  constexpr operator std::span<const live_runs>() const { return {groups.data(), used}; }
  constexpr std::size_t size() const {
    std::size_t sum = 0;
    for (std::size_t i = 0; i < used; ++i) sum += groups[i].size();
    return sum;
  }
};

/// All elements of a range, as one run.
constexpr live_runs runs_of(const range& all) { return {all.begin, all.size(), all.size(), 1}; }

/// The weights [out][kernel_h][kernel_w][in] at `offset` of a flat buffer whose taps meet the input at some output
/// position; all others only ever multiply padding, so that their gradient is exactly zero. Runs that touch are merged:
/// at most one group per row of the kernel. Throws argument_error on a kernel of more than 16 rows that needs a group
/// for each.
constexpr live_run_list live_runs_of(const conv2d_geometry& g, std::size_t offset = 0) {
  const range rows = ever_live_taps(g.in_height, g.out_height(), g.kernel_h, g.stride_h, g.padding_h);
  const range columns = ever_live_taps(g.in_width, g.out_width(), g.kernel_w, g.stride_w, g.padding_w);
  const std::size_t row = g.kernel_w * g.in_channels, filter = g.kernel_h * row;
  live_run_list result;
  if (rows.size() == 0 || columns.size() == 0 || g.weights() == 0) return result;
  const auto add = [&](std::size_t begin, std::size_t run) {
    const bool solid = run == filter;
    result.groups[result.used++] =
        solid ? live_runs{offset, g.weights(), g.weights(), 1} : live_runs{offset + begin, run, filter, g.out_channels};
  };
  if (columns.size() == g.kernel_w) {
    add(rows.begin * row, rows.size() * row);
    return result;
  }
  if (rows.size() > live_run_list::capacity)
    reject_argument("kd::optim::live_runs_of", "a kernel with unused columns must have at most 16 used rows",
                    rows.size(), "use a smaller kernel or less padding");
  for (std::size_t y = rows.begin; y < rows.end; ++y)
    add(y * row + columns.begin * g.in_channels, columns.size() * g.in_channels);
  return result;
}

}  // namespace kd::inline KD_ABI::optim
