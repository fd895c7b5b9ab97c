/// 3x3 convolutions of few channels by direct sums, fused with bias, relu and 2x2 max pool: forward and gradients.
///
/// Images are [sample][height][width][channel] in T (float or kernel::bfloat16), weights and their gradients
/// [out][3][3][in] floats, winners one byte for each pooled value: its place 0..3 in the window, row by row, the first
/// of equal ones, or 4 where relu made it 0. A NaN passes relu and wins its window. All sums are floats in a fixed
/// order: two runs give the same bits. Pointers need the alignment of their type; with channels in multiples of four
/// and 16 bytes (T = float; 8 for bfloat16), four values move at once.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kd/core/shape.hpp"
#include "kd/cuda/launch.hpp"
#include "kd/kernel/direct_conv2d.cuh"
#include "kd/kernel/direct_conv2d_data.cuh"
#include "kd/kernel/direct_conv2d_weight.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// Whether these kernels take the convolution: 3x3, stride 1, padding 1, 1 to 16 channels in and 1 to 32 out.
constexpr bool direct_conv2d(const conv2d_geometry& g) {
  return g.kernel_h == 3 && g.kernel_w == 3 && g.stride_h == 1 && g.stride_w == 1 && g.padding_h == 1 &&
         g.padding_w == 1 && g.in_channels >= 1 && g.in_channels <= 16 && g.out_channels >= 1 && g.out_channels <= 32 &&
         g.in_height >= 1 && g.in_width >= 1 && g.in_height < (1u << 15) && g.in_width < (1u << 15);
}

namespace direct_conv2d_detail {

namespace direct_conv = kernel::direct_conv;

constexpr unsigned narrow(std::size_t n) { return static_cast<unsigned>(n); }
constexpr unsigned ceil_quotient(std::size_t n, std::size_t by) { return narrow((n + by - 1) / by); }

/// Parts of up to 128 threads: 16 columns at most (eight windows side by side meet all banks), and as many rows as
/// threads allow, 32 at most. `channels` are those of the image that is written.
constexpr direct_conv::tiling tiling_of(const conv2d_geometry& g, std::size_t channels) {
  const unsigned windows = direct_conv::part_threads_at_most / ceil_quotient(channels, 4);
  const unsigned across = std::min(ceil_quotient(g.in_width, direct_conv::thread_columns), 8u);
  const unsigned down = std::min({ceil_quotient(g.in_height, direct_conv::thread_rows), windows / across, 8u});
  return {narrow(g.in_height),
          narrow(g.in_width),
          narrow(g.in_channels),
          narrow(g.out_channels),
          down * direct_conv::thread_rows,
          across * direct_conv::thread_columns};
}

/// Blocks of up to 256 threads: 16 strips down at most, then several across, shorter ones where threads are left.
constexpr direct_conv::weight_tiling weight_tiling_of(const conv2d_geometry& g) {
  direct_conv::weight_tiling t{.height = narrow(g.in_height),
                               .width = narrow(g.in_width),
                               .in_channels = narrow(g.in_channels),
                               .out_channels = narrow(g.out_channels),
                               .strip_windows = 1,
                               .strips_down = 1,
                               .strips_across = 1};
  const unsigned windows = ceil_quotient(g.in_width, 2), strips = direct_conv::weight_threads_at_most / t.unit();
  t.strip_windows = std::min(windows, 8u);
  t.strips_down = std::min({ceil_quotient(g.in_height, 2), strips, 16u});
  t.strips_across = std::min({ceil_quotient(windows, t.strip_windows), strips / t.strips_down, 2u});
  while (t.strip_windows % 2 == 0 && t.strip_windows > 2 && t.strips() * 2 <= strips) {
    t.strip_windows /= 2;
    t.strips_across *= 2;
  }
  return t;
}

/// How the tiles of a batch are shared out: as many blocks as an H100 or H200 has processors, at most.
struct weight_blocks {
  std::size_t tiles, each, blocks;
  constexpr weight_blocks(const direct_conv::weight_tiling& t, std::size_t batch)
      : tiles(batch * t.tiles()), each((tiles + 131) / 132), blocks(each == 0 ? 0 : (tiles + each - 1) / each) {}
};

inline void check_direct_conv2d(const conv2d_geometry& g, const char* function, bool pool) {
  if (!direct_conv2d(g))
    reject_argument(function, "a 3x3 convolution, stride 1, padding 1, of 1 to 16 channels in and 1 to 32 out",
                    text(g.kernel_h, "x", g.kernel_w, " of ", text_of(g.in()), " to ", g.out_channels, " channels"),
                    "ask kd::cuda::direct_conv2d(geometry) first");
  if (pool && (g.in_height % 2 != 0 || g.in_width % 2 != 0))
    reject_argument(function, "height and width must be even", text_of(g.in()), "pool in a layer of its own");
}

/// Calls body with the number of components per group of input channels as a constant.
template <class Body>
KD_HIDDEN void with_components(const conv2d_geometry& g, const Body& body) {
  if (g.in_channels <= 3)
    body(std::integral_constant<unsigned, 3>{});
  else
    body(std::integral_constant<unsigned, 4>{});
}

template <bool Pool, class T>
KD_HIDDEN void direct_conv2d_forward(const stream& s, const char* name, const conv2d_geometry& g, std::size_t batch,
                                     const T* x, const float* w, const float* bias, bool relu, T* y,
                                     std::uint8_t* winners) {
  check_direct_conv2d(g, name, Pool);
  const direct_conv::tiling t = tiling_of(g, g.out_channels);
  const unsigned groups = ceil_quotient(t.in_channels, 4);
  with_components(g, [&](auto components) {
    launch(s, name, blocks_for(batch * t.tiles, 1), t.threads(t.out_channels, groups),
           t.shared_bytes(t.out_channels, groups, components()), kernel::direct_conv2d_forward<T, components(), Pool>,
           t, x, w, bias, relu, y, winners);
  });
}

template <bool Pool, class T>
KD_HIDDEN void direct_conv2d_backward_data(const stream& s, const char* name, const conv2d_geometry& g,
                                           std::size_t batch, const T* dy, const std::uint8_t* winners, const float* w,
                                           bool accumulate, T* dx) {
  check_direct_conv2d(g, name, Pool);
  const direct_conv::tiling t = tiling_of(g, g.in_channels);
  const unsigned groups = ceil_quotient(t.out_channels, 4);
  launch(s, name, blocks_for(batch * t.tiles, 1), t.threads(t.in_channels, groups),
         t.shared_bytes(t.in_channels, groups, 4), kernel::direct_conv2d_backward_data<T, Pool>, t, dy, winners, w,
         accumulate, dx);
}

template <bool Pool, class T>
KD_HIDDEN void direct_conv2d_backward_weight(const stream& s, const char* name, const conv2d_geometry& g,
                                             std::size_t batch, const T* x, const T* dy, const std::uint8_t* winners,
                                             float* dw, float* db, float* scratch) {
  check_direct_conv2d(g, name, Pool);
  const direct_conv::weight_tiling t = weight_tiling_of(g);
  const weight_blocks work(t, batch);
  with_components(g, [&](auto components) {
    launch(s, name, narrow(work.blocks), t.threads(), t.shared_bytes(),
           kernel::direct_conv2d_backward_weight<T, components(), Pool>, t, blocks_for(work.tiles, 1),
           narrow(work.each), x, dy, winners, scratch);
    launch(s, name, blocks_for(t.partial(), kernel::warp_size), kernel::partial_parts * kernel::warp_size, 0,
           kernel::direct_conv2d_add_partials<components()>, t, narrow(work.blocks), scratch, dw, db);
  });
}

}  // namespace direct_conv2d_detail

/// Floats of scratch that the gradients of the weights need, plain or pooled.
constexpr std::size_t direct_conv2d_scratch(const conv2d_geometry& g, std::size_t batch) {
  const auto t = direct_conv2d_detail::weight_tiling_of(g);
  return direct_conv2d_detail::weight_blocks(t, batch).blocks * t.partial();
}

/// y = convolution of x by w + bias (or none), then max(0, .) if relu. Throws argument_error where direct_conv2d(g) is
/// false, as all that follow.
template <class T>
KD_HIDDEN void direct_conv2d_forward(const stream& s, const conv2d_geometry& g, std::size_t batch, const T* x,
                                     const float* w, const float* bias, bool relu, T* y) {
  direct_conv2d_detail::direct_conv2d_forward<false>(s, "direct_conv2d_forward", g, batch, x, w, bias, relu, y,
                                                     nullptr);
}

/// y = 2x2 max pool of max(0, convolution + bias) and the winners; height and width must be even, as in all that pool.
template <class T>
KD_HIDDEN void direct_conv2d_relu_pool_forward(const stream& s, const conv2d_geometry& g, std::size_t batch, const T* x,
                                               const float* w, const float* bias, T* y, std::uint8_t* winners) {
  direct_conv2d_detail::direct_conv2d_forward<true>(s, "direct_conv2d_relu_pool_forward", g, batch, x, w, bias, true, y,
                                                    winners);
}

/// dx = the gradient of the convolution's input, or dx += it; dy is the gradient of its output, after relu's.
template <class T>
KD_HIDDEN void direct_conv2d_backward_data(const stream& s, const conv2d_geometry& g, std::size_t batch, const T* dy,
                                           const float* w, bool accumulate, T* dx) {
  direct_conv2d_detail::direct_conv2d_backward_data<false>(s, "direct_conv2d_backward_data", g, batch, dy, nullptr, w,
                                                           accumulate, dx);
}

/// As direct_conv2d_backward_data, from the gradient of the pooled output.
template <class T>
KD_HIDDEN void direct_conv2d_relu_pool_backward_data(const stream& s, const conv2d_geometry& g, std::size_t batch,
                                                     const T* dy, const std::uint8_t* winners, const float* w,
                                                     bool accumulate, T* dx) {
  direct_conv2d_detail::direct_conv2d_backward_data<true>(s, "direct_conv2d_relu_pool_backward_data", g, batch, dy,
                                                          winners, w, accumulate, dx);
}

/// dw and, where it is not null, db; both are overwritten. scratch: direct_conv2d_scratch(g, batch) floats.
template <class T>
KD_HIDDEN void direct_conv2d_backward_weight(const stream& s, const conv2d_geometry& g, std::size_t batch, const T* x,
                                             const T* dy, float* dw, float* db, float* scratch) {
  direct_conv2d_detail::direct_conv2d_backward_weight<false>(s, "direct_conv2d_backward_weight", g, batch, x, dy,
                                                             nullptr, dw, db, scratch);
}

/// As direct_conv2d_backward_weight, from the gradient of the pooled output.
template <class T>
KD_HIDDEN void direct_conv2d_relu_pool_backward_weight(const stream& s, const conv2d_geometry& g, std::size_t batch,
                                                       const T* x, const T* dy, const std::uint8_t* winners, float* dw,
                                                       float* db, float* scratch) {
  direct_conv2d_detail::direct_conv2d_backward_weight<true>(s, "direct_conv2d_relu_pool_backward_weight", g, batch, x,
                                                            dy, winners, dw, db, scratch);
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
