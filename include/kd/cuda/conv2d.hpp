/// Convolutions of any geometry on the GPU: forward, and the gradients of input, weights and bias, alone or with relu
/// and a 2x2 max pool behind them.
///
/// Images are [sample][height][width][channel] in T (float or kernel::bfloat16), weights and their gradients
/// [out][kernel_h][kernel_w][in] floats. Three ways, by geometry:
/// - kd/cuda/direct_conv2d.hpp where few channels meet;
/// - products by cuBLASLt where the output is one pixel, one for each run of memory in which its live taps lie. Of
///   a 3x3 convolution of a 1x1 image only the centre is ever more than padding: ResNet18's last stage at 32x32 input
///   needs a ninth of the multiplications, and of the weights read, that a convolution would take; its first, of stride
///   2 on 2x2, is two products, where cuDNN's only deterministic gradient of the input took 0.74 ms on an H100 in
///   float;
/// - cuDNN otherwise. In bfloat16 the weights are rounded to bfloat16 for it, and so is its gradient of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kd/core/shape.hpp"
#include "kd/core/type_list.hpp"
#include "kd/cuda/activation.hpp"
#include "kd/cuda/buffer.hpp"
#include "kd/cuda/cast.hpp"
#include "kd/cuda/cublaslt.hpp"
#include "kd/cuda/cudnn.hpp"
#include "kd/cuda/direct_conv2d.hpp"
#include "kd/cuda/pool.hpp"
#include "kd/cuda/reduce.hpp"
#include "kd/cuda/relu_pool.hpp"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// Floats of scratch that the gradients of this geometry need, plain or pooled; other temporaries are the library's.
constexpr std::size_t conv2d_scratch(const conv2d_geometry& g, std::size_t batch) {
  return direct_conv2d(g) ? direct_conv2d_scratch(g, batch) : 0;
}

/// The live taps of a convolution to one pixel, as `count` runs of memory: run i is `size` elements from x + i * x_step
/// on in every sample and from w + i * w_step on in every filter. Count 0: not such a convolution.
struct tap_runs {
  std::size_t x = 0, w = 0, size = 0, count = 0, x_step = 0, w_step = 0;
};

constexpr tap_runs tap_runs_of(const conv2d_geometry& g) {
  if (g.out_height() != 1 || g.out_width() != 1) return {};
  const range h = live_taps(0, g.in_height, g.kernel_h, g.stride_h, g.padding_h);
  const range w = live_taps(0, g.in_width, g.kernel_w, g.stride_w, g.padding_w);
  if (h.size() == 0 || w.size() == 0) return {};
  tap_runs runs{.x = ((h.begin - g.padding_h) * g.in_width + w.begin - g.padding_w) * g.in_channels,
                .w = (h.begin * g.kernel_w + w.begin) * g.in_channels,
                .size = w.size() * g.in_channels,
                .count = h.size(),
                .x_step = g.in_width * g.in_channels,
                .w_step = g.kernel_w * g.in_channels};
  // Rows of taps that touch, here and there, are one.
  if (runs.size == runs.x_step && runs.size == runs.w_step) {
    runs.size *= runs.count;
    runs.count = 1;
  }
  return runs;
}

namespace detail {

/// How cuBLASLt's products call the numbers of images.
template <class T>
constexpr element element_of() {
  if constexpr (std::is_same_v<T, float>)
    return element::float32;
  else if constexpr (std::is_same_v<T, kernel::bfloat16>)
    return element::bfloat16;
  else
    static_assert(no_branch_for<T>, "kd::cuda: images are float or kernel::bfloat16");
}

constexpr std::size_t filter_size(const conv2d_geometry& g) { return g.kernel_h * g.kernel_w * g.in_channels; }

/// Calls body with the weights as cuDNN and cuBLASLt take them beside images of T; the room is the frame's.
template <class T>
KD_HIDDEN const T* weights_as(const stream& s, workspace::frame& room, const conv2d_geometry& g, const float* w) {
  if constexpr (element_of<T>() == element::float32) {
    return w;
  } else {
    T* rounded = room.take<T>(s, g.weights());
    cast(s, g.weights(), w, rounded);
    return rounded;
  }
}

/// Whether T's forward pass is products: the sum of several would be rounded to bfloat16 after each.
template <class T>
constexpr bool forward_by_products(const tap_runs& runs) {
  return runs.count == 1 || (runs.count > 1 && element_of<T>() == element::float32);
}

template <class T>
KD_HIDDEN void products_forward(const stream& s, cudnn& library, const conv2d_geometry& g, const tap_runs& runs,
                                std::size_t batch, const T* x, const T* w, const float* bias, bool relu, T* y) {
  // Only floats have the bias of the same kernel, and relu is never the library's: see linear.hpp.
  const bool fused = std::is_same_v<T, float> && !relu && bias != nullptr;
  product p{.rows = batch,
            .columns = g.out_channels,
            .depth = runs.size,
            .b_transposed = true,
            .row_a = g.in().size(),
            .row_b = filter_size(g),
            .row_d = g.out_channels,
            .in = element_of<T>(),
            .out = element_of<T>()};
  for (std::size_t i = 0; i < runs.count; ++i) {
    p.bias = fused && i == 0;
    p.accumulate = i > 0;
    library.products().multiply(s, p, x + runs.x + i * runs.x_step, w + runs.w + i * runs.w_step, bias, nullptr, y);
  }
  if (!fused && (bias != nullptr || relu)) bias_relu(s, batch, g.out_channels, y, bias, relu, y);
}

template <class T>
KD_HIDDEN void products_backward_data(const stream& s, cudnn& library, const conv2d_geometry& g, const tap_runs& runs,
                                      std::size_t batch, const T* dy, const T* w, bool accumulate, T* dx) {
  // Pixels that no tap meets.
  if (!accumulate && runs.count * runs.size < g.in().size()) fill_zero(s, dx, batch * g.in().size());
  const product p{.rows = batch,
                  .columns = runs.size,
                  .depth = g.out_channels,
                  .row_a = g.out_channels,
                  .row_b = filter_size(g),
                  .row_d = g.in().size(),
                  .in = element_of<T>(),
                  .out = element_of<T>(),
                  .accumulate = accumulate};
  for (std::size_t i = 0; i < runs.count; ++i)
    library.products().multiply(s, p, dy, w + runs.w + i * runs.w_step, nullptr, nullptr,
                                dx + runs.x + i * runs.x_step);
}

/// Returns whether db was written.
template <class T>
KD_HIDDEN bool products_backward_weight(const stream& s, cudnn& library, const conv2d_geometry& g, const tap_runs& runs,
                                        std::size_t batch, const T* x, const T* dy, float* dw, float* db,
                                        bool zero_dead_taps) {
  if (zero_dead_taps && runs.count * runs.size < filter_size(g)) fill_zero(s, dw, g.weights());
  product p{.rows = g.out_channels,
            .columns = runs.size,
            .depth = batch,
            .a_transposed = true,
            .row_a = g.out_channels,
            .row_b = g.in().size(),
            .row_d = filter_size(g),
            .in = element_of<T>()};
  bool summed = false;
  for (std::size_t i = 0; i < runs.count; ++i) {
    p.sums_of_a = std::is_same_v<T, float> && db != nullptr && i == 0;
    summed |=
        library.products().multiply(s, p, dy, x + runs.x + i * runs.x_step, nullptr, db, dw + runs.w + i * runs.w_step);
  }
  return summed;
}

template <class T>
KD_HIDDEN void library_backward_weight(const stream& s, cudnn& library, const conv2d_geometry& g, std::size_t batch,
                                       const T* x, const T* dy, float* dw) {
  if constexpr (element_of<T>() == element::float32) {
    library.backward_filter(s, g, batch, x, dy, dw);
  } else {
    workspace::frame room(library.room());
    T* rounded = room.take<T>(s, g.weights());
    library.backward_filter(s, g, batch, x, dy, rounded);
    cast(s, g.weights(), rounded, dw);
  }
}

}  // namespace detail

/// y = convolution of x by w + bias (or none), then max(0, .) if relu.
template <class T>
KD_HIDDEN void conv2d_forward(const stream& s, cudnn& library, const conv2d_geometry& g, std::size_t batch, const T* x,
                              const float* w, const float* bias, bool relu, T* y) {
  if (batch == 0) return;
  if (direct_conv2d(g)) return direct_conv2d_forward(s, g, batch, x, w, bias, relu, y);
  workspace::frame room(library.room());
  const T* weights = detail::weights_as<T>(s, room, g, w);
  if (const tap_runs runs = tap_runs_of(g); detail::forward_by_products<T>(runs))
    return detail::products_forward(s, library, g, runs, batch, x, weights, bias, relu, y);
  library.forward(s, g, batch, x, weights, y);
  if (bias != nullptr || relu) bias_relu(s, batch * g.out().pixels(), g.out_channels, y, bias, relu, y);
}

/// dx = the gradient of the convolution's input, or dx += it; dy is the gradient of its output, after relu's.
template <class T>
KD_HIDDEN void conv2d_backward_data(const stream& s, cudnn& library, const conv2d_geometry& g, std::size_t batch,
                                    const T* dy, const float* w, bool accumulate, T* dx, float* /*scratch*/) {
  if (batch == 0) return;
  if (direct_conv2d(g)) return direct_conv2d_backward_data(s, g, batch, dy, w, accumulate, dx);
  workspace::frame room(library.room());
  const T* weights = detail::weights_as<T>(s, room, g, w);
  if (const tap_runs runs = tap_runs_of(g); runs.count > 0)
    return detail::products_backward_data(s, library, g, runs, batch, dy, weights, accumulate, dx);
  library.backward_data(s, g, batch, dy, weights, accumulate, dx);
}

/// dw and, where it is not null, db; both are overwritten.
///
/// Taps that only ever meet padding get exactly 0; with zero_dead_taps = false they may be left as they are, for a
/// caller who zeroed dw once.
/// @param scratch conv2d_scratch(g, batch) floats
template <class T>
KD_HIDDEN void conv2d_backward_weight(const stream& s, cudnn& library, const conv2d_geometry& g, std::size_t batch,
                                      const T* x, const T* dy, float* dw, float* db, float* scratch,
                                      bool zero_dead_taps = true) {
  if (batch == 0) {
    fill_zero(s, dw, g.weights());
    if (db != nullptr) fill_zero(s, db, g.out_channels);
    return;
  }
  if (direct_conv2d(g)) return direct_conv2d_backward_weight(s, g, batch, x, dy, dw, db, scratch);
  bool summed = db == nullptr;
  if (const tap_runs runs = tap_runs_of(g); runs.count > 0)
    summed = detail::products_backward_weight(s, library, g, runs, batch, x, dy, dw, db, zero_dead_taps) || summed;
  else
    detail::library_backward_weight(s, library, g, batch, x, dy, dw);
  if (summed) return;
  const std::size_t pixels = batch * g.out().pixels();
  workspace::frame room(library.room());
  column_sums(s, pixels, g.out_channels, dy, db, room.take<float>(s, column_sums_scratch(pixels, g.out_channels)));
}

/// y = 2x2 max pool, stride 2, of max(0, convolution + bias).
/// @param y [N][OH/2][OW/2][out_channels]
/// @param winners a byte for each of its values: the place 0..3 of the maximum, or 4 where relu made it 0
template <class T>
KD_HIDDEN void conv2d_relu_pool_forward(const stream& s, cudnn& library, const conv2d_geometry& g, std::size_t batch,
                                        const T* x, const float* w, const float* bias, T* y, std::uint8_t* winners) {
  if (batch == 0) return;
  if (direct_conv2d(g) && g.in_height % 2 == 0 && g.in_width % 2 == 0)
    return direct_conv2d_relu_pool_forward(s, g, batch, x, w, bias, y, winners);
  workspace::frame room(library.room());
  T* whole = room.take<T>(s, batch * g.out().size());
  conv2d_forward(s, library, g, batch, x, w, nullptr, false, whole);
  bias_relu_pool(s, g.out(), batch, whole, bias, y, winners);
}

/// As conv2d_backward_data, from dy, the gradient of the pooled output.
template <class T>
KD_HIDDEN void conv2d_relu_pool_backward_data(const stream& s, cudnn& library, const conv2d_geometry& g,
                                              std::size_t batch, const T* dy, const std::uint8_t* winners,
                                              const float* w, bool accumulate, T* dx, float* scratch) {
  if (batch == 0) return;
  if (direct_conv2d(g) && g.in_height % 2 == 0 && g.in_width % 2 == 0)
    return direct_conv2d_relu_pool_backward_data(s, g, batch, dy, winners, w, accumulate, dx);
  workspace::frame room(library.room());
  T* whole = room.take<T>(s, batch * g.out().size());
  max_pool2d_backward(s, halved(g.out()), batch, dy, winners, whole);
  conv2d_backward_data(s, library, g, batch, whole, w, accumulate, dx, scratch);
}

/// As conv2d_backward_weight, from dy, the gradient of the pooled output.
template <class T>
KD_HIDDEN void conv2d_relu_pool_backward_weight(const stream& s, cudnn& library, const conv2d_geometry& g,
                                                std::size_t batch, const T* x, const T* dy, const std::uint8_t* winners,
                                                float* dw, float* db, float* scratch) {
  if (batch > 0 && direct_conv2d(g) && g.in_height % 2 == 0 && g.in_width % 2 == 0)
    return direct_conv2d_relu_pool_backward_weight(s, g, batch, x, dy, winners, dw, db, scratch);
  workspace::frame room(library.room());
  T* whole = room.take<T>(s, batch * g.out().size());
  if (batch > 0) max_pool2d_backward(s, halved(g.out()), batch, dy, winners, whole);
  conv2d_backward_weight(s, library, g, batch, x, whole, dw, db, scratch);
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
