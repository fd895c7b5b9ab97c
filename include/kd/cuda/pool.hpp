/// Pooling on the GPU: launchers of kd/kernel/pool.cuh. Images are [sample][height][width][channel], of float or
/// bfloat16.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kd/core/error.hpp"
#include "kd/core/shape.hpp"
#include "kd/cuda/channels.hpp"
#include "kd/cuda/launch.hpp"
#include "kd/kernel/pool.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

namespace detail {

inline void check_pool(const char* function, const pool2d_geometry& g) {
  if (g.kernel < 1 || g.kernel > kernel::pool_largest_kernel)
    reject_argument(function, "kernel must lie in 1..15", g.kernel, "pool in two steps");
  if (g.stride < 1) reject_argument(function, "stride must be at least 1", g.stride, "use the kernel size");
  if (2 * g.padding > g.kernel)
    reject_argument(function, "padding must be at most half the kernel", g.padding, "use a larger kernel");
  if (g.in_height + 2 * g.padding < g.kernel || g.in_width + 2 * g.padding < g.kernel)
    reject_argument(function, "kernel must fit into the padded image", g.kernel, "use a smaller kernel");
}
/// Within a sample the kernels count in 32 bits.
inline void check_pool_sample(const char* function, const shape& s) {
  if (s.size() > 0x7fffffffu)
    reject_argument(function, "at most 2147483647 values per sample", s.size(), "split the image by channels");
}

inline kernel::pool_geometry pool_numbers(const pool2d_geometry& g) {
  // A stride beyond the image leaves one window, as any larger one does.
  const auto narrow = [](std::size_t n) { return static_cast<unsigned>(std::min<std::size_t>(n, 0x7fffffffu)); };
  return {.channels = narrow(g.channels),
          .in_height = narrow(g.in_height),
          .in_width = narrow(g.in_width),
          .out_height = narrow(g.out_height()),
          .out_width = narrow(g.out_width()),
          .kernel = narrow(g.kernel),
          .stride = narrow(g.stride),
          .padding = narrow(g.padding)};
}

/// A launch with a thread per column of a sample: threads of a block, blocks of a sample and of the batch.
struct pool_grid {
  unsigned threads, per_sample, blocks;

  static pool_grid of(std::size_t columns, std::size_t batch) {
    const std::size_t whole_warps = (columns + kernel::warp_size - 1) / kernel::warp_size * kernel::warp_size;
    const auto threads = static_cast<unsigned>(std::min<std::size_t>(kernel::pool_threads, whole_warps));
    const unsigned per_sample = blocks_for(columns, threads);
    return {threads, per_sample, blocks_for(per_sample * batch, 1)};
  }
};

/// Calls f with `value` as a constant where it is First or Second, else with 0.
template <unsigned First, unsigned Second, class Function>
KD_HIDDEN void with_unrolled(std::size_t value, const Function& f) {
  if (value == First)
    f(std::integral_constant<unsigned, First>{});
  else if (value == Second)
    f(std::integral_constant<unsigned, Second>{});
  else
    f(std::integral_constant<unsigned, 0>{});
}

}  // namespace detail

/// Maximum over kernel x kernel windows; padding counts as minus infinity, a NaN wins over every number (PyTorch's
/// rule).
/// @param x [N][H][W][C]
/// @param y [N][OH][OW][C]
/// @param winners [N][OH][OW][C], kernel row * kernel + kernel column of the first maximum
/// @throws argument_error when the kernel is not in 1..15, the stride is 0, the padding exceeds half the kernel, or a
/// sample has 2^31 values or more
template <class T>
KD_HIDDEN void max_pool2d_forward(const stream& s, const pool2d_geometry& g, std::size_t batch, const T* x, T* y,
                                  std::uint8_t* winners) {
  constexpr const char* function = "kd::cuda::max_pool2d_forward";
  detail::check_pool(function, g);
  detail::check_pool_sample(function, g.in());
  detail::check_pool_sample(function, g.out());
  if (batch * g.in().size() == 0) return;
  detail::with_column_width(detail::in_fours(g.channels, x, y, winners), [&](auto width) {
    detail::with_unrolled<2, 3>(g.kernel, [&](auto taps) {
      const auto grid = detail::pool_grid::of(g.out().size() / width, batch);
      launch(s, "max_pool_forward", grid.blocks, grid.threads, 0, kernel::max_pool_forward<T, width, taps>,
             detail::pool_numbers(g), grid.per_sample, x, y, winners);
    });
  });
}

/// Gradient of max_pool2d_forward; overlapping windows add.
/// @param dy [N][OH][OW][C]
/// @param winners as written by max_pool2d_forward
/// @param dx [N][H][W][C], overwritten
/// @throws argument_error as max_pool2d_forward
template <class T>
KD_HIDDEN void max_pool2d_backward(const stream& s, const pool2d_geometry& g, std::size_t batch, const T* dy,
                                   const std::uint8_t* winners, T* dx) {
  constexpr const char* function = "kd::cuda::max_pool2d_backward";
  detail::check_pool(function, g);
  detail::check_pool_sample(function, g.in());
  detail::check_pool_sample(function, g.out());
  if (batch * g.in().size() == 0) return;
  detail::with_column_width(detail::in_fours(g.channels, dy, winners, dx), [&](auto width) {
    detail::with_unrolled<1, 2>((g.kernel - 1) / g.stride + 1, [&](auto overlap) {
      const auto grid = detail::pool_grid::of(g.in().size() / width, batch);
      launch(s, "max_pool_backward", grid.blocks, grid.threads, 0, kernel::max_pool_backward<T, width, overlap>,
             detail::pool_numbers(g), grid.per_sample, dy, winners, dx);
    });
  });
}

/// Mean over all pixels of a channel.
/// @param x [N][H][W][C]
/// @param y [N][C]
/// @throws argument_error when a sample has 2^31 values or more
template <class T>
KD_HIDDEN void global_avg_pool2d_forward(const stream& s, const shape& in, std::size_t batch, const T* x, T* y) {
  detail::check_pool_sample("kd::cuda::global_avg_pool2d_forward", in);
  if (batch * in.size() == 0) return;
  // Eight pixels or more to a lane; 8 columns of 4 channels to a block at least, so that rows are read in 128 bytes.
  unsigned lanes = 1;
  while (lanes < 32 && 16 * lanes <= in.pixels()) lanes *= 2;
  detail::with_column_width(detail::in_fours(in.channels, x, y), [&](auto width) {
    const std::size_t columns = batch * (in.channels / width);
    launch(s, "global_avg_pool_forward", blocks_for(columns, kernel::pool_threads / lanes), kernel::pool_threads, 0,
           kernel::global_avg_pool_forward<T, width>, columns, in.channels, in.pixels(), lanes, x, y);
  });
}

/// Gradient of global_avg_pool2d_forward.
/// @param dy [N][C]
/// @param dx [N][H][W][C], overwritten
/// @throws argument_error when a sample has 2^31 values or more
template <class T>
KD_HIDDEN void global_avg_pool2d_backward(const stream& s, const shape& in, std::size_t batch, const T* dy, T* dx) {
  detail::check_pool_sample("kd::cuda::global_avg_pool2d_backward", in);
  if (batch * in.size() == 0) return;
  detail::with_column_width(detail::in_fours(in.channels, dy, dx), [&](auto width) {
    const auto grid = detail::pool_grid::of(in.size() / width, batch);
    launch(s, "global_avg_pool_backward", grid.blocks, grid.threads, 0, kernel::global_avg_pool_backward<T, width>,
           grid.per_sample, in.channels, in.pixels(), dy, dx);
  });
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
