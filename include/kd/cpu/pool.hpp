/// Pooling of lane-blocked images: maximum over windows, mean over the whole image.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/shape.hpp"
#include "kd/cpu/parallel.hpp"
#include "kd/cpu/rows.hpp"
#include "kd/cpu/simd.hpp"

namespace kd::inline KD_ABI::cpu {

namespace detail {

/// The largest pooling kernel: taps are kept in one byte.
inline constexpr std::size_t max_pool_kernel = 15;

inline void check_pool(const pool2d_geometry& g) {
  constexpr const char* function = "kd::cpu::max_pool2d";
  if (g.kernel < 1 || g.kernel > max_pool_kernel)
    reject_argument(function, "kernel must lie in 1..15", g.kernel, "pool in two steps");
  if (g.stride < 1) reject_argument(function, "stride must be at least 1", g.stride, "use the kernel size");
  if (2 * g.padding > g.kernel)
    reject_argument(function, "padding must be at most half the kernel", g.padding, "use a larger kernel");
  if (g.in_height + 2 * g.padding < g.kernel || g.in_width + 2 * g.padding < g.kernel)
    reject_argument(function, "kernel must fit into the padded image", g.kernel, "use a smaller kernel");
}

/// One window of a max pool and its place in memory.
struct pool_tap {
  std::size_t offset;  // in vectors of 16 lanes
  std::int32_t tap;    // kernel row * kernel + kernel column
};

/// One output pixel [C][16]: maxima over `count` taps, count > 0.
inline void max_pool_pixel(const pool_tap* taps, std::size_t count, std::size_t channels, const float* x, float* y,
                           std::uint8_t* arg) {
  for (std::size_t c = 0; c < channels * lanes; c += lanes) {
    std::int32_t winners[lanes];
    for (std::size_t l = 0; l < lanes; l += native_width) {
      const std::size_t i = c + l;
      floats best;
      load(best, x + taps[0].offset * lanes + i);
      ints best_tap = ints{} + taps[0].tap;
      for (std::size_t t = 1; t < count; ++t) {
        floats value;
        load(value, x + taps[t].offset * lanes + i);
        // PyTorch's rule: strictly greater wins, so the first of equals stays; a NaN always wins.
        const ints wins = (value > best) | (value != value);
        best = wins ? value : best;
        best_tap = wins ? ints{} + taps[t].tap : best_tap;
      }
      store(y + i, best);
      store(winners + l, best_tap);
    }
    store_narrowed(arg + c, winners);
  }
}

/// One input pixel [C][16]: the sum of the gradients of those of `count` windows whose maximum it was.
inline void max_pool_pixel_gradient(const pool_tap* windows, std::size_t count, std::size_t channels, const float* dy,
                                    const std::uint8_t* arg, float* dx) {
  for (std::size_t i = 0; i < channels * lanes; i += native_width) {
    floats sum{};
    for (std::size_t t = 0; t < count; ++t) {
      ints taken;
      floats gradient;
      load_bytes<native_width>(taken, arg + windows[t].offset * lanes + i);
      load(gradient, dy + windows[t].offset * lanes + i);
      const ints mine = taken == ints{} + windows[t].tap;
      sum += mine ? gradient : floats{};
    }
    store(dx + i, sum);
  }
}

/// The windows along one axis that hold input position `in`: outputs [begin, end).
constexpr range windows_of(std::size_t in, std::size_t out_size, const pool2d_geometry& g) {
  const std::size_t position = in + g.padding;
  const std::size_t begin = position < g.kernel ? 0 : (position - g.kernel) / g.stride + 1;
  const std::size_t end = std::min(out_size, position / g.stride + 1);
  return begin < end ? range{begin, end} : range{0, 0};
}

}  // namespace detail

/// Maximum over kernel x kernel windows; padding counts as minus infinity, a NaN wins over every number (PyTorch's
/// rule).
/// @param x [block][H][W][C][16]
/// @param y [block][OH][OW][C][16]
/// @param arg [block][OH][OW][C][16], kernel row * kernel + kernel column of the first maximum
/// @throws argument_error when the kernel is not in 1..15, the stride is 0, or the padding exceeds half the kernel
inline void max_pool2d_forward(const parallel& par, const pool2d_geometry& g, std::size_t batch, const float* x,
                               float* y, std::uint8_t* arg) {
  detail::check_pool(g);
  const std::size_t out_height = g.out_height(), out_width = g.out_width();
  par.for_each(blocks_of(batch) * out_height, [&](std::size_t i) {
    const std::size_t block = i / out_height, oh = i % out_height;
    const range kh = live_taps(oh, g.in_height, g.kernel, g.stride, g.padding);
    for (std::size_t ow = 0; ow < out_width; ++ow) {
      const range kw = live_taps(ow, g.in_width, g.kernel, g.stride, g.padding);
      detail::pool_tap taps[detail::max_pool_kernel * detail::max_pool_kernel];
      std::size_t count = 0;
      for (std::size_t h = kh.begin; h < kh.end; ++h)
        for (std::size_t w = kw.begin; w < kw.end; ++w) {
          const std::size_t in_h = oh * g.stride + h - g.padding, in_w = ow * g.stride + w - g.padding;
          taps[count++] = {(in_h * g.in_width + in_w) * g.channels, static_cast<std::int32_t>(h * g.kernel + w)};
        }
      const std::size_t out = (i * out_width + ow) * g.channels * lanes;
      detail::max_pool_pixel(taps, count, g.channels, x + block * g.in().size() * lanes, y + out, arg + out);
    }
  });
}

/// Gradient of max_pool2d_forward; overlapping windows add.
/// @param dy [block][OH][OW][C][16]
/// @param arg as written by max_pool2d_forward
/// @param dx [block][H][W][C][16], overwritten
/// @throws argument_error as max_pool2d_forward
inline void max_pool2d_backward(const parallel& par, const pool2d_geometry& g, std::size_t batch, const float* dy,
                                const std::uint8_t* arg, float* dx) {
  detail::check_pool(g);
  const std::size_t out_height = g.out_height(), out_width = g.out_width();
  par.for_each(blocks_of(batch) * g.in_height, [&](std::size_t i) {
    const std::size_t block = i / g.in_height, h = i % g.in_height;
    const std::size_t first = block * g.out().size() * lanes;
    const range rows = detail::windows_of(h, out_height, g);
    for (std::size_t w = 0; w < g.in_width; ++w) {
      const range columns = detail::windows_of(w, out_width, g);
      detail::pool_tap windows[detail::max_pool_kernel * detail::max_pool_kernel];
      std::size_t count = 0;
      for (std::size_t oh = rows.begin; oh < rows.end; ++oh)
        for (std::size_t ow = columns.begin; ow < columns.end; ++ow) {
          const std::size_t kh = h + g.padding - oh * g.stride, kw = w + g.padding - ow * g.stride;
          windows[count++] = {(oh * out_width + ow) * g.channels, static_cast<std::int32_t>(kh * g.kernel + kw)};
        }
      detail::max_pool_pixel_gradient(windows, count, g.channels, dy + first, arg + first,
                                      dx + (i * g.in_width + w) * g.channels * lanes);
    }
  });
}

/// Mean over all pixels of a channel.
/// @param x [block][H][W][C][16]
/// @param y [block][C][16]
inline void avg_pool2d_global_forward(const parallel& par, const shape& in, std::size_t batch, const float* x,
                                      float* y) {
  if (in.size() == 0) return;
  const float scale = 1.0f / static_cast<float>(in.pixels());
  const std::size_t row = in.channels * lanes;
  par.split(blocks_of(batch) * in.channels, [&](std::size_t begin, std::size_t end, std::size_t) {
    for (std::size_t i = begin; i < end; ++i) {
      const float* from = x + (i / in.channels * in.pixels() * in.channels + i % in.channels) * lanes;
      for (std::size_t l = 0; l < lanes; l += native_width) {
        detail::floats total{};
        // Row sums first: the rounding error grows with H + W, not with H * W.
        for (std::size_t h = 0; h < in.height; ++h) {
          detail::floats sum{};
          for (std::size_t w = 0; w < in.width; ++w) {
            detail::floats value;
            detail::load(value, from + (h * in.width + w) * row + l);
            sum += value;
          }
          total += sum;
        }
        detail::store(y + i * lanes + l, total * scale);
      }
    }
  });
}

/// Gradient of avg_pool2d_global_forward.
/// @param dy [block][C][16]
/// @param dx [block][H][W][C][16], overwritten
inline void avg_pool2d_global_backward(const parallel& par, const shape& in, std::size_t batch, const float* dy,
                                       float* dx) {
  if (in.size() == 0) return;
  const float scale = 1.0f / static_cast<float>(in.pixels());
  const std::size_t row = in.channels * lanes;
  par.for_each(blocks_of(batch) * in.pixels(), [&](std::size_t i) {
    const float* from = dy + i / in.pixels() * row;
    for (std::size_t l = 0; l < row; l += native_width) {
      detail::floats value;
      detail::load(value, from + l);
      detail::store(dx + i * row + l, value * scale);
    }
  });
}

}  // namespace kd::inline KD_ABI::cpu
