/// Elementwise layers on the GPU: relu, sum, bias with relu, and flatten.
///
/// T is float or kernel::bfloat16. Throws argument_error on arrays beyond the grid (more than 2^39 elements).
#pragma once

#include <algorithm>
#include <cstddef>

#include "kd/core/shape.hpp"
#include "kd/cuda/cast.hpp"
#include "kd/cuda/elementwise.hpp"
#include "kd/kernel/activation.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// y = max(x, 0); NaN stays NaN. y may be x.
template <class T>
KD_HIDDEN void relu_forward(const stream& s, std::size_t n, const T* x, T* y) {
  const auto work = detail::elementwise_work_of(n, kernel::pack_width<T>, detail::aligned_to(16, x, y));
  launch(s, "relu_forward", work.blocks, kernel::elementwise_threads, 0, kernel::relu_forward<T>, n, work.vectors, x,
         y);
}

/// dx = dy where y > 0 (or NaN), else 0. dx may be dy or y.
/// @param y the output of relu_forward
template <class T>
KD_HIDDEN void relu_backward(const stream& s, std::size_t n, const T* y, const T* dy, T* dx) {
  const auto work = detail::elementwise_work_of(n, kernel::pack_width<T>, detail::aligned_to(16, y, dy, dx));
  launch(s, "relu_backward", work.blocks, kernel::elementwise_threads, 0, kernel::relu_backward<T>, n, work.vectors, y,
         dy, dx);
}

/// y = a + b, rounded once; y may be a, b or both.
template <class T>
KD_HIDDEN void add(const stream& s, std::size_t n, const T* a, const T* b, T* y) {
  const auto work = detail::elementwise_work_of(n, kernel::pack_width<T>, detail::aligned_to(16, a, b, y));
  launch(s, "add", work.blocks, kernel::elementwise_threads, 0, kernel::add<T>, n, work.vectors, a, b, y);
}

/// y = x + bias[channel], then relu where asked for; rounded once. y may be x.
/// @param pixels of all samples: batch * height * width
/// @param x [pixels][channels]
/// @param bias [channels], or null for none
template <class T>
KD_HIDDEN void bias_relu(const stream& s, std::size_t pixels, std::size_t channels, const T* x, const float* bias,
                         bool relu, T* y) {
  if (pixels == 0 || channels == 0) return;
  constexpr std::size_t width = kernel::pack_width<T>;
  const std::size_t n = pixels * channels;
  const bool wide = channels % width == 0 && detail::aligned_to(16, x, y, bias);
  const auto work = detail::elementwise_work_of(n, width, wide);
  launch(s, "bias_relu", work.blocks, kernel::elementwise_threads, 0, kernel::bias_relu<T>, n, work.vectors, x, bias,
         detail::size32("kd::cuda::bias_relu", "channels", channels), relu, y);
}

namespace detail {

/// One matrix [rows][columns] per sample to [columns][rows].
template <class From, class To>
KD_HIDDEN void transpose(const stream& s, std::size_t samples, std::size_t rows, std::size_t columns, const From* from,
                         To* to) {
  if (samples == 0 || rows == 0 || columns == 0) return;
  if (rows == 1 || columns == 1) return cast(s, samples * rows * columns, from, to);
  // At most 32 of the shorter side, and as many of the longer as fill the tile, in whole warps.
  const std::size_t narrow = std::min<std::size_t>({rows, columns, 32});
  const std::size_t wide = kernel::transpose_tile / narrow / 32 * 32;
  const bool tall = rows >= columns;
  const std::size_t tile_rows = std::min(rows, tall ? wide : narrow);
  const std::size_t tile_columns = std::min(columns, tall ? narrow : wide);
  const std::size_t down = blocks_for(rows, tile_rows), across = blocks_for(columns, tile_columns);
  const char* const where = "kd::cuda::flatten";
  launch(s, "transpose", blocks_for(samples * down * across, 1), kernel::transpose_threads, 0,
         kernel::transpose<From, To>, size32(where, "pixels and channels", rows),
         size32(where, "pixels and channels", columns), static_cast<std::uint32_t>(tile_rows),
         static_cast<std::uint32_t>(tile_columns), static_cast<std::uint32_t>(down), static_cast<std::uint32_t>(across),
         from, to);
}

}  // namespace detail

/// From an image to a row of its features in canonical order (c * H + h) * W + w, which is PyTorch's.
/// @param x [batch][H][W][C]
/// @param y [batch][C*H*W], not x
template <class T>
KD_HIDDEN void flatten_forward(const stream& s, const shape& in, std::size_t batch, const T* x, float* y) {
  detail::transpose(s, batch, in.pixels(), in.channels, x, y);
}

/// Gradient of flatten_forward: its inverse.
/// @param dy [batch][C*H*W]
/// @param dx [batch][H][W][C], overwritten, not dy
template <class T>
KD_HIDDEN void flatten_backward(const stream& s, const shape& in, std::size_t batch, const float* dy, T* dx) {
  detail::transpose(s, batch, in.channels, in.pixels(), dy, dx);
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
