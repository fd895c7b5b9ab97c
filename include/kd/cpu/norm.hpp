/// Batch normalisation of lane-blocked images, fused with the residual sum and the relu that follow it.
/// Ioffe, Szegedy: Batch normalization. ICML 2015, algorithms 1 and 2.
///
///   forward   y = relu(gamma * (x - mean) / sqrt(var + epsilon) + beta + residual)
///   backward  g = dy where y > 0;  d_beta = sum g;  d_gamma = sum g * xhat;
///             dx = gamma / sqrt(var + epsilon) * (g - d_beta / M - xhat * d_gamma / M),  M = batch * H * W
///
/// Threads take channels, so that no sum is split. Sums are of differences from a pivot near the mean, sixteen rows in
/// float and then in double, so that a mean far from zero does not eat the variance. Bytes moved, in units of the
/// activation: training forward 2 reads and 1 write; backward 6 reads (4 without relu) and 1 write.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/shape.hpp"
#include "kd/cpu/parallel.hpp"
#include "kd/cpu/rows.hpp"
#include "kd/cpu/simd.hpp"

namespace kd::inline KD_ABI::cpu {

/// Constants of batch normalisation, with PyTorch's defaults.
struct batch_norm_options {
  /// Added to the variance under the root.
  float epsilon = 1e-5f;
  /// Weight of the new value in the running statistics.
  float momentum = 0.1f;
};

namespace detail {

/// Channels that a thread carries through both passes at a time.
inline constexpr std::size_t norm_group = 64;
/// Rows whose sums are taken in float before they go into double.
inline constexpr std::size_t norm_tile = 16;
/// Rows that the statistics read side by side. The backward pass reads one: sixteen at once, three arrays each, took
/// 624 us at [64,8,8], batch 128, against 208 (Zen 4, one thread).
inline constexpr std::size_t norm_step = 2;

/// Two sums per lane of one channel.
struct lane_sums {
  double first[lanes], second[lanes];

  void add(const float (&a)[lanes], const float (&b)[lanes]) {
    for (std::size_t l = 0; l < lanes; ++l) first[l] += a[l];
    for (std::size_t l = 0; l < lanes; ++l) second[l] += b[l];
  }
  static double total(const double (&sums)[lanes]) {
    double sum = 0;
    for (const double s : sums) sum += s;
    return sum;
  }
};

/// The activation as rows of channels, [block * pixel][C][16], cut into whole blocks and a partly filled one.
struct norm_rows {
  std::size_t stride;        // floats from row to row
  std::size_t full, all;     // rows in full blocks, rows
  std::int32_t mask[lanes];  // live lanes of rows [full, all)
  double count;              // live values per channel

  norm_rows(const shape& s, std::size_t batch)
      : stride(s.channels * lanes),
        full(batch / lanes * s.pixels()),
        all(blocks_of(batch) * s.pixels()),
        count(static_cast<double>(batch) * static_cast<double>(s.pixels())) {
    last_block_mask(batch, mask);
  }
};

/// Adds the sums of (x - pivot) and (x - pivot)^2 over rows [begin, end) to `sums`, `channels` channels from x on.
template <bool Masked>
void add_moments(const norm_rows& rows, std::size_t begin, std::size_t end, std::size_t channels, const float* pivot,
                 const float* x, lane_sums* sums) {
  const std::size_t stride = rows.stride;
  for (std::size_t tile = begin; tile < end; tile += norm_tile) {
    const std::size_t tile_end = std::min(end, tile + norm_tile);
    float tile_sum[norm_group][lanes], tile_square[norm_group][lanes];
    for (std::size_t r = tile; r < tile_end; r += norm_step) {
      const std::size_t steps = std::min(norm_step, tile_end - r);
      for (std::size_t c = 0; c < channels; ++c) {
        const float p = pivot[c];
        for (std::size_t l = 0; l < lanes; l += native_width) {
          floats sum{}, square{};
          if (r != tile) {
            load(sum, tile_sum[c] + l);
            load(square, tile_square[c] + l);
          }
          for (std::size_t q = 0; q < steps; ++q) {
            floats value;
            load(value, x + (r + q) * stride + c * lanes + l);
            value -= p;
            if constexpr (Masked) {
              ints live;
              load(live, rows.mask + l);
              value = (floats)((ints)value & live);
            }
            sum += value;
            square += value * value;
          }
          store(tile_sum[c] + l, sum);
          store(tile_square[c] + l, square);
        }
      }
    }
    for (std::size_t c = 0; c < channels; ++c) sums[c].add(tile_sum[c], tile_square[c]);
  }
}

/// A value near the mean of each channel, from the first rows: that of the live lanes of at most norm_tile rows.
inline void choose_pivots(const norm_rows& rows, std::size_t channels, const float* x, float* pivot) {
  const std::size_t chosen = std::min(norm_tile, rows.full > 0 ? rows.full : rows.all);
  float zero[norm_group] = {};
  lane_sums sums[norm_group] = {};
  double live = static_cast<double>(chosen * lanes);
  if (rows.full > 0) {
    add_moments<false>(rows, 0, chosen, channels, zero, x, sums);
  } else {
    add_moments<true>(rows, 0, chosen, channels, zero, x, sums);
    live = 0;
    for (const std::int32_t m : rows.mask) live += m != 0 ? static_cast<double>(chosen) : 0.0;
  }
  for (std::size_t c = 0; c < channels; ++c) pivot[c] = static_cast<float>(sums[c].total(sums[c].first) / live);
}

/// y = (x - mean) * scale + shift over rows [begin, end).
template <bool Residual, bool Relu>
void normalise_rows(const norm_rows& rows, std::size_t begin, std::size_t end, std::size_t channels, const float* mean,
                    const float* scale, const float* shift, const float* x, const float* residual, float* y) {
  const std::size_t stride = rows.stride;
  for (std::size_t r = begin; r < end; ++r) {
    for (std::size_t c = 0; c < channels; ++c) {
      const float m = mean[c], a = scale[c], b = shift[c];
      for (std::size_t l = 0; l < lanes; l += native_width) {
        const std::size_t at = r * stride + c * lanes + l;
        floats value, other;
        load(value, x + at);
        value = (value - m) * a + b;
        if constexpr (Residual) {
          load(other, residual + at);
          value += other;
        }
        const floats zero{};
        if constexpr (Relu) value = value < zero ? zero : value;
        store(y + at, value);
      }
    }
  }
}

/// The four forms of normalise_rows.
using normalise_function = void (*)(const norm_rows&, std::size_t, std::size_t, std::size_t, const float*, const float*,
                                    const float*, const float*, const float*, float*);
inline normalise_function normalise_form(bool residual, bool relu) {
  if (residual) return relu ? normalise_rows<true, true> : normalise_rows<true, false>;
  return relu ? normalise_rows<false, true> : normalise_rows<false, false>;
}

/// What a backward pass reads and writes, from the first channel of a group on.
struct norm_gradient {
  const float *x, *y, *dy;  // y only with relu
  float *masked, *dx;       // masked: receives g, or null
};

/// Adds the sums of g and g * (x - mean) over rows [begin, end) to `sums`, and writes g where it is wanted.
template <bool Relu, bool Masked>
void add_gradient_sums(const norm_rows& rows, std::size_t begin, std::size_t end, std::size_t channels,
                       const float* mean, const norm_gradient& d, lane_sums* sums) {
  const std::size_t stride = rows.stride;
  const float *x = d.x, *y = d.y, *dy = d.dy;
  float* masked = d.masked;
  for (std::size_t tile = begin; tile < end; tile += norm_tile) {
    const std::size_t tile_end = std::min(end, tile + norm_tile);
    float tile_sum[norm_group][lanes], tile_product[norm_group][lanes];
    for (std::size_t r = tile; r < tile_end; ++r) {
      for (std::size_t c = 0; c < channels; ++c) {
        const float m = mean[c];
        for (std::size_t l = 0; l < lanes; l += native_width) {
          const std::size_t at = r * stride + c * lanes + l;
          floats sum{}, product{}, value, gradient;
          if (r != tile) {
            load(sum, tile_sum[c] + l);
            load(product, tile_product[c] + l);
          }
          load(value, x + at);
          load(gradient, dy + at);
          value -= m;
          if constexpr (Relu) {
            floats out;
            load(out, y + at);
            const floats zero{};
            gradient = out <= zero ? zero : gradient;
          }
          if constexpr (Masked) {
            ints live;
            load(live, rows.mask + l);
            gradient = (floats)((ints)gradient & live);
          }
          if (masked != nullptr) store(masked + at, gradient);
          store(tile_sum[c] + l, sum + gradient);
          store(tile_product[c] + l, product + gradient * value);
        }
      }
    }
    for (std::size_t c = 0; c < channels; ++c) sums[c].add(tile_sum[c], tile_product[c]);
  }
}

/// dx = (g - offset - (x - mean) * slope) * scale over rows [begin, end).
template <bool Relu, bool Masked>
void gradient_rows(const norm_rows& rows, std::size_t begin, std::size_t end, std::size_t channels, const float* mean,
                   const float* offset, const float* slope, const float* scale, const norm_gradient& d) {
  const float* from = d.masked != nullptr ? d.masked : d.dy;
  const float *x = d.x, *y = d.y;
  float* dx = d.dx;
  const std::size_t stride = rows.stride;
  const bool apply_relu = Relu && d.masked == nullptr;
  for (std::size_t r = begin; r < end; ++r) {
    for (std::size_t c = 0; c < channels; ++c) {
      const float m = mean[c], o = offset[c], b = slope[c], a = scale[c];
      for (std::size_t l = 0; l < lanes; l += native_width) {
        const std::size_t at = r * stride + c * lanes + l;
        floats value, gradient;
        load(value, x + at);
        load(gradient, from + at);
        if (apply_relu) {
          floats out;
          load(out, y + at);
          const floats zero{};
          gradient = out <= zero ? zero : gradient;
        }
        gradient = (gradient - o - (value - m) * b) * a;
        if constexpr (Masked) {
          ints live;
          load(live, rows.mask + l);
          gradient = (floats)((ints)gradient & live);
        }
        store(dx + at, gradient);
      }
    }
  }
}

/// Both passes of the backward pass over one group of channels.
template <bool Relu>
void norm_backward_group(const norm_rows& rows, std::size_t channels, const float* gamma, const float* mean,
                         const float* inv_std, const norm_gradient& d, float* d_gamma, float* d_beta) {
  lane_sums sums[norm_group] = {};
  add_gradient_sums<Relu, false>(rows, 0, rows.full, channels, mean, d, sums);
  add_gradient_sums<Relu, true>(rows, rows.full, rows.all, channels, mean, d, sums);
  float offset[norm_group], slope[norm_group], scale[norm_group];
  for (std::size_t c = 0; c < channels; ++c) {
    const double sum = sums[c].total(sums[c].first), product = sums[c].total(sums[c].second), inv = inv_std[c];
    d_beta[c] = static_cast<float>(sum);
    d_gamma[c] = static_cast<float>(product * inv);
    offset[c] = static_cast<float>(sum / rows.count);
    slope[c] = static_cast<float>(product * inv * inv / rows.count);
    scale[c] = gamma[c] * inv_std[c];
  }
  if (d.dx == nullptr) return;
  gradient_rows<Relu, true>(rows, rows.full, rows.all, channels, mean, offset, slope, scale, d);
  gradient_rows<Relu, false>(rows, 0, rows.full, channels, mean, offset, slope, scale, d);
}

}  // namespace detail

/// Training forward pass: normalises by the statistics of the batch and updates the running ones, as PyTorch does
/// (biased variance to normalise, unbiased for running_var).
/// @param x [block][H][W][C][16]
/// @param residual as x, added after the affine map, or null
/// @param relu whether max(., 0) follows
/// @param y as x; may be x or residual
/// @param saved_mean, saved_inv_std [C], written for the backward pass
/// @throws argument_error with one value per channel, whose variance is not defined
inline void batch_norm2d_forward_train(const parallel& par, const shape& s, std::size_t batch, const float* x,
                                       const float* gamma, const float* beta, const batch_norm_options& options,
                                       const float* residual, bool relu, float* y, float* saved_mean,
                                       float* saved_inv_std, float* running_mean, float* running_var) {
  if (batch == 0 || s.size() == 0) return;
  if (batch * s.pixels() == 1)
    reject_argument("kd::cpu::batch_norm2d_forward_train", "training needs more than 1 value per channel",
                    text("batch 1 of ", text_of(s)), "use a larger batch, or drop the last one where it is not full");
  const detail::norm_rows rows(s, batch);
  const auto normalise = detail::normalise_form(residual != nullptr, relu);
  par.split(s.channels, [&](std::size_t begin, std::size_t end, std::size_t) {
    for (std::size_t first = begin; first < end; first += detail::norm_group) {
      const std::size_t channels = std::min(detail::norm_group, end - first), at = first * lanes;
      float pivot[detail::norm_group];
      detail::choose_pivots(rows, channels, x + at, pivot);
      detail::lane_sums sums[detail::norm_group] = {};
      detail::add_moments<false>(rows, 0, rows.full, channels, pivot, x + at, sums);
      detail::add_moments<true>(rows, rows.full, rows.all, channels, pivot, x + at, sums);
      float scale[detail::norm_group];
      for (std::size_t c = 0; c < channels; ++c) {
        const double offset = sums[c].total(sums[c].first) / rows.count, mean = pivot[c] + offset;
        const double variance = sums[c].total(sums[c].second) / rows.count - offset * offset;
        const double inv_std = 1.0 / std::sqrt(std::max(variance, 0.0) + static_cast<double>(options.epsilon));
        const double unbiased = variance * rows.count / (rows.count - 1), momentum = options.momentum;
        const std::size_t i = first + c;
        saved_mean[i] = static_cast<float>(mean);
        saved_inv_std[i] = static_cast<float>(inv_std);
        running_mean[i] = static_cast<float>((1 - momentum) * running_mean[i] + momentum * mean);
        running_var[i] = static_cast<float>((1 - momentum) * running_var[i] + momentum * unbiased);
        scale[c] = gamma[i] * saved_inv_std[i];
      }
      normalise(rows, 0, rows.all, channels, saved_mean + first, scale, beta + first, x + at,
                residual != nullptr ? residual + at : nullptr, y + at);
    }
  });
}

/// Inference forward pass: normalises by the running statistics; arguments as batch_norm2d_forward_train.
inline void batch_norm2d_forward_infer(const parallel& par, const shape& s, std::size_t batch, const float* x,
                                       const float* gamma, const float* beta, const float* running_mean,
                                       const float* running_var, const batch_norm_options& options,
                                       const float* residual, bool relu, float* y) {
  if (batch == 0 || s.size() == 0) return;
  const detail::norm_rows rows(s, batch);
  const auto normalise = detail::normalise_form(residual != nullptr, relu);
  par.split(rows.all, [&](std::size_t begin, std::size_t end, std::size_t) {
    for (std::size_t first = 0; first < s.channels; first += detail::norm_group) {
      const std::size_t channels = std::min(detail::norm_group, s.channels - first), at = first * lanes;
      float scale[detail::norm_group];
      for (std::size_t c = 0; c < channels; ++c)
        scale[c] = gamma[first + c] / std::sqrt(running_var[first + c] + options.epsilon);
      normalise(rows, begin, end, channels, running_mean + first, scale, beta + first, x + at,
                residual != nullptr ? residual + at : nullptr, y + at);
    }
  });
}

/// Backward pass of batch_norm2d_forward_train; every output is overwritten.
/// @param x, y the input and, with relu, the output of the forward pass, [block][H][W][C][16]
/// @param dy gradient of y, 0 in lanes beyond the batch
/// @param d_residual receives dy where y > 0, the gradient of the residual; may be dy or null
/// @param dx null where nobody needs it; may be dy, not d_residual; 0 in lanes beyond the batch
/// @param d_gamma, d_beta [C]
inline void batch_norm2d_backward(const parallel& par, const shape& s, std::size_t batch, const float* x,
                                  const float* y, const float* dy, const float* gamma, const float* saved_mean,
                                  const float* saved_inv_std, bool relu, float* d_residual, float* dx, float* d_gamma,
                                  float* d_beta) {
  if (batch == 0 || s.size() == 0) return;
  const detail::norm_rows rows(s, batch);
  par.split(s.channels, [&](std::size_t begin, std::size_t end, std::size_t) {
    for (std::size_t first = begin; first < end; first += detail::norm_group) {
      const std::size_t channels = std::min(detail::norm_group, end - first), at = first * lanes;
      const detail::norm_gradient d{x + at, relu ? y + at : nullptr, dy + at,
                                    d_residual != nullptr ? d_residual + at : nullptr,
                                    dx != nullptr ? dx + at : nullptr};
      (relu ? detail::norm_backward_group<true>
            : detail::norm_backward_group<false>)(rows, channels, gamma + first, saved_mean + first,
                                                  saved_inv_std + first, d, d_gamma + first, d_beta + first);
    }
  });
}

}  // namespace kd::inline KD_ABI::cpu
