/// Convolutions and linear layers of the CPU device: forward, and the gradients of input, weights and bias.
///
/// Activations are [block][H][W][C][16 samples], weights [out][kernel_h][kernel_w][in]; a linear layer is the
/// convolution of a 1x1 image. No pass builds a column matrix, and no pass works on padding: taps outside the image are
/// left out of the sums. All pointers are aligned to 64 bytes. Width is the native vector width (simd.hpp).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kd/core/abi.hpp"
#include "kd/core/shape.hpp"
#include "kd/cpu/detail/conv2d_relu_pool.hpp"
#include "kd/cpu/detail/conv2d_weight.hpp"
#include "kd/cpu/matrix.hpp"
#include "kd/cpu/parallel.hpp"

namespace kd::inline KD_ABI::cpu {

/// What is done to the sums of a forward convolution before they are stored: + bias[out channel], then max(0, .).
struct conv2d_epilogue {
  const float* bias = nullptr;
  bool relu = false;
};

/// Floats of scratch that the backward passes of this geometry need, plain or pooled.
constexpr std::size_t conv2d_scratch(const conv2d_geometry& g, std::size_t batch) {
  return std::max(detail::weight_gradient_scratch(g, blocks_of(batch)), detail::relu_pool_scratch(g, blocks_of(batch)));
}

/// y[n,co,oh,ow] = epilogue(sum over ci,kh,kw of weight[co,kh,kw,ci] * x[n,ci,ih,iw]), ih = oh * stride - padding + kh.
template <std::size_t Width = native_width>
void conv2d_forward(const parallel& threads, const conv2d_geometry& g, std::size_t batch, const float* x,
                    const float* weight, conv2d_epilogue epilogue, float* y) {
  const parallel team = detail::team_for(threads, g, batch);
  const std::size_t in_pixel = g.in_channels * lanes, in_block = g.in().pixels() * in_pixel;
  const std::size_t out_pixel = g.out_channels * lanes, out_block = g.out().pixels() * out_pixel;
  const std::size_t weight_row = g.kernel_h * g.kernel_w * g.in_channels;
  const product_strides strides{weight_row, 1, lanes, in_block, lanes, out_block};
  const std::size_t out_width = g.out_width();
  detail::for_each_tile<Width>(team, blocks_of(batch), g.out().pixels(), g.out_channels, [&](const detail::tile& t) {
    const std::size_t oh = t.pixel / out_width, ow = t.pixel % out_width;
    const range kh = live_taps(oh, g.in_height, g.kernel_h, g.stride_h, g.padding_h);
    const range kw = live_taps(ow, g.in_width, g.kernel_w, g.stride_w, g.padding_w);
    const std::size_t run = kw.size() * g.in_channels;  // (kw, ci) is contiguous in the weights and in x
    const product_update update{false, epilogue.bias == nullptr ? nullptr : epilogue.bias + t.row, epilogue.relu};
    product<Width> sums(strides, t.rows, t.blocks, kh.size() * run,
                        y + t.block * out_block + t.pixel * out_pixel + t.row * lanes, update);
    for (std::size_t h = kh.begin; h < kh.end && run > 0; ++h) {
      const std::size_t ih = oh * g.stride_h + h - g.padding_h, iw = ow * g.stride_w + kw.begin - g.padding_w;
      sums.add(weight + t.row * weight_row + (h * g.kernel_w + kw.begin) * g.in_channels,
               x + t.block * in_block + (ih * g.in_width + iw) * in_pixel, run);
    }
    sums.finish();
  });
}

/// dx[n,ci,ih,iw] (+)= sum over co and the taps that meet (ih,iw) of weight[co,kh,kw,ci] * dy[n,co,oh,ow]; adds to dx
/// where `accumulate` is set. Lanes of dx beyond the batch become 0 as those of dy are.
template <std::size_t Width = native_width>
void conv2d_backward_data(const parallel& threads, const conv2d_geometry& g, std::size_t batch, const float* dy,
                          const float* weight, bool accumulate, float* dx, float* /*scratch*/) {
  const parallel team = detail::team_for(threads, g, batch);
  const std::size_t in_pixel = g.in_channels * lanes, in_block = g.in().pixels() * in_pixel;
  const std::size_t out_pixel = g.out_channels * lanes, out_block = g.out().pixels() * out_pixel;
  const std::size_t weight_row = g.kernel_h * g.kernel_w * g.in_channels;
  const product_strides strides{1, weight_row, lanes, out_block, lanes, in_block};
  const std::size_t out_height = g.out_height(), out_width = g.out_width();
  detail::for_each_tile<Width>(team, blocks_of(batch), g.in().pixels(), g.in_channels, [&](const detail::tile& t) {
    const std::size_t ih = t.pixel / g.in_width, iw = t.pixel % g.in_width;
    const detail::meeting_taps vertical(ih, out_height, g.kernel_h, g.stride_h, g.padding_h);
    const detail::meeting_taps horizontal(iw, out_width, g.kernel_w, g.stride_w, g.padding_w);
    product<Width> sums(strides, t.rows, t.blocks, vertical.count() * horizontal.count() * g.out_channels,
                        dx + t.block * in_block + t.pixel * in_pixel + t.row * lanes, {accumulate, nullptr, false});
    for (std::size_t h = vertical.first; h < vertical.end; h += g.stride_h)
      for (std::size_t w = horizontal.first; w < horizontal.end; w += g.stride_w) {
        const std::size_t out = vertical.out(h) * out_width + horizontal.out(w);
        sums.add(weight + (h * g.kernel_w + w) * g.in_channels + t.row, dy + t.block * out_block + out * out_pixel,
                 g.out_channels);
      }
    sums.finish();
  });
}

/// dw[co,kh,kw,ci] = sum over n,oh,ow of dy[n,co,oh,ow] * x[n,ci,ih,iw], and db[co] = sum of dy where db is not null.
///
/// Taps that only ever meet padding get exactly 0; with zero_dead_taps = false they may be left as they are, for a
/// caller who zeroed dw once.
template <std::size_t Width = native_width>
void conv2d_backward_weight(const parallel& threads, const conv2d_geometry& g, std::size_t batch, const float* x,
                            const float* dy, float* dw, float* db, float* scratch, bool zero_dead_taps = true) {
  const parallel team = detail::team_for(threads, g, batch);
  const std::size_t blocks = blocks_of(batch);
  if (db != nullptr) detail::bias_gradient<Width>(team, blocks, g.out().pixels(), g.out_channels, dy, db);
  if (detail::transposes_input(g))
    detail::weight_gradient_from_input<Width>(team, g, blocks, x, dy, dw, scratch, zero_dead_taps);
  else
    detail::weight_gradient_from_output<Width>(team, g, blocks, x, dy, dw, scratch);
}

/// y = 2x2 max pool, stride 2, of max(0, convolution + bias), without ever storing the convolution.
///
/// y is [block][out_height / 2][out_width / 2][out_channels][16]; arg has one byte for each of its values: the position
/// 0..3 of the maximum in its window, row by row, the first one among equals, or 4 where relu made it 0.
template <std::size_t Width = native_width>
void conv2d_relu_pool_forward(const parallel& threads, const conv2d_geometry& g, std::size_t batch, const float* x,
                              const float* weight, const float* bias, float* y, std::uint8_t* arg) {
  const parallel team = detail::team_for(threads, g, batch);
  const std::size_t in_pixel = g.in_channels * lanes, in_block = g.in().pixels() * in_pixel;
  const std::size_t weight_row = g.kernel_h * g.kernel_w * g.in_channels;
  const std::size_t height = g.out_height() / 2, width = g.out_width() / 2;
  constexpr std::size_t rows_at_once = 16;
  const product_strides strides{weight_row, 1, lanes, in_block, lanes, rows_at_once * lanes};
  detail::for_each_tile<Width>(team, blocks_of(batch), height * width, g.out_channels, [&](const detail::tile& t) {
    alignas(64) float window[4][vectors_at_once<Width>][rows_at_once][lanes];
    for (std::size_t row = t.row; row < t.row + t.rows; row += rows_at_once) {
      const std::size_t rows = std::min(rows_at_once, t.row + t.rows - row);
      for (std::size_t q = 0; q < 4; ++q) {
        const std::size_t oh = t.pixel / width * 2 + q / 2, ow = t.pixel % width * 2 + q % 2;
        const range kh = live_taps(oh, g.in_height, g.kernel_h, g.stride_h, g.padding_h);
        const range kw = live_taps(ow, g.in_width, g.kernel_w, g.stride_w, g.padding_w);
        const std::size_t run = kw.size() * g.in_channels;
        product<Width> sums(strides, rows, t.blocks, kh.size() * run, window[q][0][0],
                            {false, bias == nullptr ? nullptr : bias + row, false});
        for (std::size_t h = kh.begin; h < kh.end && run > 0; ++h) {
          const std::size_t ih = oh * g.stride_h + h - g.padding_h, iw = ow * g.stride_w + kw.begin - g.padding_w;
          sums.add(weight + row * weight_row + (h * g.kernel_w + kw.begin) * g.in_channels,
                   x + t.block * in_block + (ih * g.in_width + iw) * in_pixel, run);
        }
        sums.finish();
      }
      for (std::size_t b = 0; b < t.blocks; ++b)
        for (std::size_t r = 0; r < rows; ++r) {
          const std::size_t out = (((t.block + b) * height * width + t.pixel) * g.out_channels + row + r) * lanes;
          detail::relu_pool<Width>(window[0][b][r], sizeof(window[0]) / sizeof(float), y + out, arg + out);
        }
    }
  });
}

/// dx (+)= the gradient of the input of conv2d_relu_pool_forward, from dp, the gradient of its pooled output, and its
/// arg.
template <std::size_t Width = native_width>
void conv2d_relu_pool_backward_data(const parallel& threads, const conv2d_geometry& g, std::size_t batch,
                                    const float* dp, const std::uint8_t* arg, const float* weight, bool accumulate,
                                    float* dx, float* scratch) {
  const parallel team = detail::team_for(threads, g, batch);
  detail::pooled_data_gradient<Width>(team, g, blocks_of(batch), dp, arg, weight, accumulate, dx, scratch);
}

/// dw and, where it is not null, db of conv2d_relu_pool_forward, from dp, the gradient of its pooled output, and its
/// arg.
template <std::size_t Width = native_width>
void conv2d_relu_pool_backward_weight(const parallel& threads, const conv2d_geometry& g, std::size_t batch,
                                      const float* x, const float* dp, const std::uint8_t* arg, float* dw, float* db,
                                      float* scratch) {
  const parallel team = detail::team_for(threads, g, batch);
  detail::pooled_weight_gradient<Width>(team, g, blocks_of(batch), x, dp, arg, dw, db, scratch);
}

}  // namespace kd::inline KD_ABI::cpu
