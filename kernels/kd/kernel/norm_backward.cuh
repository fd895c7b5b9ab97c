/// Batch normalisation, backward, through the relu and the residual sum that norm.cuh fuses.
/// Ioffe, Szegedy: Batch normalization. ICML 2015, section 3.
///
///   g = dy where not y <= 0 (with relu; a NaN of y lets dy pass), else dy;  d_residual = g
///   d_beta = sum g;  d_gamma = sum g xhat,  xhat = (x - mean) inv_std
///   dx = gamma inv_std (g - d_beta / M - xhat d_gamma / M),  M = batch * height * width
///
/// x, y, dy, d_residual, dx [M][C], float or bfloat16; everything per channel is float [C]; arithmetic is float, sums
/// over blocks double, their order fixed by the shape. d_residual may be dy, dx may be dy, not d_residual. Where
/// d_residual is written, the second pass reads g from there and not dy and y.
///
/// Launches (kd/cuda/norm.hpp chooses):
///   M <= 2,048   norm_backward_one_block: up to 512 threads, 16 KiB of static shared memory; up to 8 channels.
///   M > 2,048    norm_gradient_sums: 256 threads, 8 KiB; sums of each slab of rows to scratch [2][C][slabs].
///                norm_finish_gradient_sums: one warp per channel, 256 threads, no shared memory.
///                norm_input_gradient: 256 threads, no shared memory; not launched where dx is not wanted.
/// Columns as in norm.cuh.
///
/// Bytes moved, in activations: x and dy twice, y twice with relu, dx once: 5, with relu 7; with relu and d_residual
/// x, y, dy and x, g read, d_residual and dx written: 7.
/// Predicted, not measured: ResNet18's shapes with relu at 4.3 TB/s (an H200's copy), batch 128, float:
///   [64,16,16] 58.7 MB, 13.7 us;  [64,8,8] 14.7 MB, 3.4 us;  [128,4,4] 7.3 MB, 1.7 us;  [256,2,2] 3.7 MB, 0.9 us;
///   [512,1,1] 1.8 MB, 0.4 us. The second reading of the smaller ones comes from L2. bfloat16 takes half.
/// Limits as norm.cuh. Checked by tests/cuda/norm_test.cpp.
#pragma once

#include "kd/kernel/norm.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// g of the rows of `p`: adds g to sums[0 .. Width) and g * (x - mean) to sums[Width .. 2 Width), and writes g to
/// d_residual where that is not null.
template <class T, unsigned Width>
__device__ void add_gradient_rows(const channel_tiling& t, const channel_place& p, const T* x, const T* y, const T* dy,
                                  bool relu, const float (&mean)[Width], T* d_residual, float (&sums)[2 * Width]) {
  for (std::size_t row = p.first; row < p.end; row += std::size_t{norm_rows} * t.lanes) {
    const row_batch rows(t, p, row);
    float value[norm_rows][Width], gradient[norm_rows][Width], out[norm_rows][Width];
#pragma unroll
    for (unsigned r = 0; r < norm_rows; ++r) {
      if (rows.has(r)) {
        load_channels<Width>(x + rows.at(r), value[r]);
        load_channels<Width>(dy + rows.at(r), gradient[r]);
        if (relu) load_channels<Width>(y + rows.at(r), out[r]);
      }
    }
#pragma unroll
    for (unsigned r = 0; r < norm_rows; ++r) {
      if (rows.has(r)) {
#pragma unroll
        for (unsigned k = 0; k < Width; ++k) {
          if (relu && out[r][k] <= 0) gradient[r][k] = 0;
          sums[k] += gradient[r][k];
          sums[Width + k] = fmaf(gradient[r][k], value[r][k] - mean[k], sums[Width + k]);
        }
        if (d_residual != nullptr) store_channels<Width>(d_residual + rows.at(r), gradient[r]);
      }
    }
  }
}

/// dx = (g - offset - (x - mean) * slope) * scale over the rows of `p`; g is dy, or dy where not y <= 0.
template <class T, unsigned Width>
__device__ void input_gradient_rows(const channel_tiling& t, const channel_place& p, const T* x, const T* y,
                                    const T* dy, bool relu, const float (&mean)[Width], const float (&offset)[Width],
                                    const float (&slope)[Width], const float (&scale)[Width], T* dx) {
  for (std::size_t row = p.first; row < p.end; row += std::size_t{norm_rows} * t.lanes) {
    const row_batch rows(t, p, row);
    float value[norm_rows][Width], gradient[norm_rows][Width], out[norm_rows][Width];
#pragma unroll
    for (unsigned r = 0; r < norm_rows; ++r) {
      if (rows.has(r)) {
        load_channels<Width>(x + rows.at(r), value[r]);
        load_channels<Width>(dy + rows.at(r), gradient[r]);
        if (relu) load_channels<Width>(y + rows.at(r), out[r]);
      }
    }
#pragma unroll
    for (unsigned r = 0; r < norm_rows; ++r) {
      if (rows.has(r)) {
#pragma unroll
        for (unsigned k = 0; k < Width; ++k) {
          if (relu && out[r][k] <= 0) gradient[r][k] = 0;
          gradient[r][k] = (gradient[r][k] - offset[k] - (value[r][k] - mean[k]) * slope[k]) * scale[k];
        }
        store_channels<Width>(dx + rows.at(r), gradient[r]);
      }
    }
  }
}

/// scratch[0][c][slab] = sum g and scratch[1][c][slab] = sum g (x - mean) over the rows of the slab.
template <class T, unsigned Width>
KD_KERNEL void __launch_bounds__(norm_threads)
    norm_gradient_sums(channel_tiling t, const T* x, const T* y, const T* dy, const float* saved_mean, bool relu,
                       T* d_residual, float* scratch) {
  __shared__ lane_sum_room<norm_threads, 2 * Width> room;
  const auto p = channel_place::of<Width>(t);
  float mean[Width] = {}, sums[2 * Width] = {};
  if (p.live) {
#pragma unroll
    for (unsigned k = 0; k < Width; ++k) mean[k] = saved_mean[p.channel + k];
  }
  add_gradient_rows(t, p, x, y, dy, relu, mean, d_residual, sums);
  sum_over_lanes(t, p.lane, sums, room);
  if (p.lane != 0 || !p.live) return;
  const std::size_t second = std::size_t{t.channels} * t.slabs;
#pragma unroll
  for (unsigned k = 0; k < Width; ++k) {
    const std::size_t at = std::size_t{p.channel + k} * t.slabs + p.slab;
    scratch[at] = sums[k];
    scratch[second + at] = sums[Width + k];
  }
}

/// d_beta and d_gamma from the sums of the slabs: one warp per channel.
template <unsigned Threads>
KD_KERNEL void __launch_bounds__(Threads)
    norm_finish_gradient_sums(channel_tiling t, const float* scratch, const float* saved_inv_std, float* d_gamma,
                              float* d_beta) {
  const unsigned lane = threadIdx.x % warp_size;
  const unsigned channel = blockIdx.x * (Threads / warp_size) + threadIdx.x / warp_size;
  if (channel >= t.channels) return;  // a whole warp
  const float* sums = scratch + std::size_t{channel} * t.slabs;
  const float* products = sums + std::size_t{t.channels} * t.slabs;
  double sum = 0, product = 0;
#pragma unroll 4
  for (unsigned slab = lane; slab < t.slabs; slab += warp_size) {
    sum += static_cast<double>(sums[slab]);
    product += static_cast<double>(products[slab]);
  }
  sum = warp_sum(sum);
  product = warp_sum(product);
  if (lane != 0) return;
  d_beta[channel] = static_cast<float>(sum);
  d_gamma[channel] = static_cast<float>(product * static_cast<double>(saved_inv_std[channel]));
}

/// The constants of input_gradient_rows for one channel.
struct norm_gradient_terms {
  float offset, slope, scale;

  static __device__ norm_gradient_terms of(std::size_t rows, float d_gamma, float d_beta, float gamma, float inv_std) {
    const float count = static_cast<float>(rows);
    return {d_beta / count, d_gamma / count * inv_std, gamma * inv_std};
  }
};

/// dx from d_gamma and d_beta; y is null where dy is already g.
template <class T, unsigned Width>
KD_KERNEL void __launch_bounds__(norm_threads)
    norm_input_gradient(channel_tiling t, const T* x, const T* y, const T* dy, const float* gamma,
                        const float* saved_mean, const float* saved_inv_std, const float* d_gamma, const float* d_beta,
                        T* dx) {
  const auto p = channel_place::of<Width>(t);
  if (!p.live) return;
  float mean[Width], offset[Width], slope[Width], scale[Width];
#pragma unroll
  for (unsigned k = 0; k < Width; ++k) {
    const std::size_t c = p.channel + k;
    const auto terms = norm_gradient_terms::of(t.rows, d_gamma[c], d_beta[c], gamma[c], saved_inv_std[c]);
    mean[k] = saved_mean[c];
    offset[k] = terms.offset;
    slope[k] = terms.slope;
    scale[k] = terms.scale;
  }
  input_gradient_rows(t, p, x, y, dy, y != nullptr, mean, offset, slope, scale, dx);
}

/// The whole backward pass of the block's channels; the tiling has one slab. dx may be null.
template <class T, unsigned Width>
KD_KERNEL void __launch_bounds__(norm_one_block_threads, 1)
    norm_backward_one_block(channel_tiling t, const T* x, const T* y, const T* dy, const float* gamma,
                            const float* saved_mean, const float* saved_inv_std, bool relu, T* d_residual, T* dx,
                            float* d_gamma, float* d_beta) {
  __shared__ lane_sum_room<norm_one_block_threads, 2 * Width> room;
  __shared__ norm_gradient_terms terms[norm_one_block_channels];
  const auto p = channel_place::of<Width>(t);
  float mean[Width] = {}, sums[2 * Width] = {};
  if (p.live) {
#pragma unroll
    for (unsigned k = 0; k < Width; ++k) mean[k] = saved_mean[p.channel + k];
  }
  add_gradient_rows(t, p, x, y, dy, relu, mean, d_residual, sums);
  sum_over_lanes(t, p.lane, sums, room);
  if (p.lane == 0 && p.live) {
#pragma unroll
    for (unsigned k = 0; k < Width; ++k) {
      const std::size_t c = p.channel + k;
      const float inv_std = saved_inv_std[c], product = sums[Width + k] * inv_std;
      d_beta[c] = sums[k];
      d_gamma[c] = product;
      terms[p.column * Width + k] = norm_gradient_terms::of(t.rows, product, sums[k], gamma[c], inv_std);
    }
  }
  if (dx == nullptr) return;  // the whole block
  // Lane 0 has put down the terms.
  __syncthreads();
  if (!p.live) return;
  float offset[Width], slope[Width], scale[Width];
#pragma unroll
  for (unsigned k = 0; k < Width; ++k) {
    offset[k] = terms[p.column * Width + k].offset;
    slope[k] = terms[p.column * Width + k].slope;
    scale[k] = terms[p.column * Width + k].scale;
  }
  // This thread wrote g where it reads it now.
  const bool masked = d_residual != nullptr;
  input_gradient_rows(t, p, x, y, masked ? d_residual : dy, relu && !masked, mean, offset, slope, scale, dx);
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
