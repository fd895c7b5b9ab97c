/// Batch normalisation, forward, fused with the residual sum and the relu that follow it.
/// Ioffe, Szegedy: Batch normalization. ICML 2015, algorithm 1. The backward pass is in norm_backward.cuh.
///
///   training   mean = sum x / M;  var = sum (x - mean)^2 / M
///              y = relu(gamma (x - mean) / sqrt(var + epsilon) + beta + r)
///              running_mean = (1 - momentum) running_mean + momentum mean;  running_var likewise from var M / (M - 1)
///   inference  y = relu(gamma (x - running_mean) / sqrt(running_var + epsilon) + beta + r)
///
/// x, r, y [M][C], M = batch * height * width, float or bfloat16; everything per channel is float [C]; arithmetic is
/// float. Variances never come from sums of squares: values are taken relative to the channel's first one; up to 8 rows
/// give a mean and a sum of squared deviations (in two passes over registers); pairs of these are merged by
///   n = n_a + n_b;  mean = mean_a + (mean_b - mean_a) n_b / n;  m2 = m2_a + m2_b + (mean_b - mean_a)^2 n_a n_b / n
/// (Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances, 1979) in a tree
/// over the block, and in double over the blocks. The order is fixed by the shape: equal runs give equal bits.
///
/// Launches (kd/cuda/norm.hpp chooses):
///   M <= 2,048   norm_forward_one_block: a block keeps up to 8 channels to itself and reads its rows twice, the
///                second time from the caches; up to 512 threads, 18 KiB of static shared memory.
///   M > 2,048    norm_moments: 256 threads, 9 KiB; mean and m2 of each slab of rows to scratch [2][C][slabs].
///                norm_finish_moments: one warp per channel, 256 threads, no shared memory.
///                norm_normalise: 256 threads, no shared memory, 4 rows per thread.
///   inference    norm_normalise alone.
/// Columns of 4 channels (16 or 8 bytes) where C % 4 == 0 and the arrays are aligned to them, else of 1.
///
/// Bytes moved, in activations: training reads x twice and r once and writes y: 3 (4 with r); inference 2 (3).
/// Predicted, not measured: training of ResNet18's shapes at 4.3 TB/s (an H200's copy), batch 128, float:
///   [64,16,16] 25.2 MB, 5.9 us;  [64,8,8] 6.3 MB, 1.5 us;  [128,4,4] 3.1 MB, 0.7 us;  [256,2,2] 1.6 MB, 0.4 us;
///   [512,1,1] 0.8 MB, 0.2 us. Below the first of these a launch (1.3 us in a graph) costs as much or more.
/// bfloat16 takes half.
/// Limits: C below 2^31; M * C as memory allows; at most 2^31 - 1 blocks. The bound of 2,048 rows is an estimate.
/// Checked by tests/cuda/norm_test.cpp.
#pragma once

#include "kd/kernel/block.cuh"
#include "kd/kernel/channels.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

inline constexpr unsigned norm_threads = 256;            // of the kernels over slabs of rows
inline constexpr unsigned norm_one_block_threads = 512;  // at most, of the kernels that keep a channel in one block
inline constexpr unsigned norm_one_block_channels = 8;   // at most, of such a block
inline constexpr unsigned norm_moment_rows = 8;          // that a thread holds in registers for its moments
inline constexpr unsigned norm_rows = 4;                 // that it holds where several arrays are read

/// Count, mean and sum of squared deviations of one thread's values, per channel; relative to a pivot of the channel.
template <unsigned Width>
struct moments {
  float count = 0;
  float mean[Width] = {};
  float m2[Width] = {};

  /// Chan's formula.
  __device__ void merge(float other_count, const float (&other_mean)[Width], const float (&other_m2)[Width]) {
    if (other_count == 0) return;
    const float total = count + other_count, weight = other_count / total;
#pragma unroll
    for (unsigned k = 0; k < Width; ++k) {
      const float difference = other_mean[k] - mean[k];
      mean[k] = fmaf(difference, weight, mean[k]);
      m2[k] += fmaf(difference * difference, count * weight, other_m2[k]);
    }
    count = total;
  }
};

/// The moments of x - pivot over the rows of `p`.
template <class T, unsigned Width>
__device__ moments<Width> row_moments(const channel_tiling& t, const channel_place& p, const T* x,
                                      const float (&pivot)[Width]) {
  moments<Width> all;
  for (std::size_t row = p.first; row < p.end; row += std::size_t{norm_moment_rows} * t.lanes) {
    const row_batch rows(t, p, row);
    float value[norm_moment_rows][Width] = {}, count = 0, mean[Width] = {}, m2[Width] = {};
#pragma unroll
    for (unsigned r = 0; r < norm_moment_rows; ++r) {
      if (rows.has(r)) {
        load_channels<Width>(x + rows.at(r), value[r]);
        count += 1;
      }
    }
#pragma unroll
    for (unsigned r = 0; r < norm_moment_rows; ++r)
      if (rows.has(r)) {
#pragma unroll
        for (unsigned k = 0; k < Width; ++k) {
          value[r][k] -= pivot[k];
          mean[k] += value[r][k];
        }
      }
#pragma unroll
    for (unsigned k = 0; k < Width; ++k) mean[k] /= count;
#pragma unroll
    for (unsigned r = 0; r < norm_moment_rows; ++r)
      if (rows.has(r)) {
#pragma unroll
        for (unsigned k = 0; k < Width; ++k) {
          const float deviation = value[r][k] - mean[k];
          m2[k] = fmaf(deviation, deviation, m2[k]);
        }
      }
    all.merge(count, mean, m2);
  }
  return all;
}

/// Shared memory in which a block merges moments.
template <unsigned Threads, unsigned Width>
struct moment_room {
  float count[Threads], mean[Width][Threads], m2[Width][Threads];

  __device__ void put(const moments<Width>& m) {
    count[threadIdx.x] = m.count;
#pragma unroll
    for (unsigned k = 0; k < Width; ++k) {
      mean[k][threadIdx.x] = m.mean[k];
      m2[k][threadIdx.x] = m.m2[k];
    }
  }
  __device__ void merge_into(moments<Width>& m, unsigned from) const {
    float other_mean[Width], other_m2[Width];
#pragma unroll
    for (unsigned k = 0; k < Width; ++k) {
      other_mean[k] = mean[k][from];
      other_m2[k] = m2[k][from];
    }
    m.merge(count[from], other_mean, other_m2);
  }
};

/// Merges moments over the lanes of each column in a fixed tree; the result is left in lane 0. All threads must call.
template <unsigned Threads, unsigned Width>
__device__ void merge_over_lanes(const channel_tiling& t, unsigned lane, moments<Width>& mine,
                                 moment_room<Threads, Width>& room) {
  room.put(mine);
  for (unsigned half = half_of_lanes(t.lanes); half > 0; half /= 2) {
    // The upper half was written in the step before, by other threads.
    __syncthreads();
    if (lane < half && lane + half < t.lanes) {
      room.merge_into(mine, threadIdx.x + half * t.columns);
      room.put(mine);
    }
  }
}

/// Where the statistics of a training pass go, [C] each, and the constants that they are made with.
struct norm_statistics {
  float *saved_mean, *saved_inv_std;  // written, for the backward pass
  float *running_mean, *running_var;  // updated
  float epsilon, momentum;

  /// From the mean and the sum of squared deviations of `count` values, count > 1.
  __device__ void finish(std::size_t channel, double count, double mean, double m2) const {
    const double inv_std = 1 / sqrt(m2 / count + static_cast<double>(epsilon)), m = static_cast<double>(momentum);
    saved_mean[channel] = static_cast<float>(mean);
    saved_inv_std[channel] = static_cast<float>(inv_std);
    running_mean[channel] = static_cast<float>((1 - m) * static_cast<double>(running_mean[channel]) + m * mean);
    running_var[channel] =
        static_cast<float>((1 - m) * static_cast<double>(running_var[channel]) + m * (m2 / (count - 1)));
  }
};

/// The first value of a channel: near its mean if the values are near one another, and equal to it if all are equal.
template <class T, unsigned Width>
__device__ void load_pivot(const channel_place& p, const T* x, float (&pivot)[Width]) {
  if (p.live) load_channels<Width>(x + p.channel, pivot);
}

/// scratch[0][c][slab] = mean - pivot and scratch[1][c][slab] = m2 over the rows of the slab.
template <class T, unsigned Width>
KD_KERNEL void __launch_bounds__(norm_threads) norm_moments(channel_tiling t, const T* x, float* scratch) {
  __shared__ moment_room<norm_threads, Width> room;
  const auto p = channel_place::of<Width>(t);
  float pivot[Width] = {};
  load_pivot(p, x, pivot);
  moments<Width> mine = row_moments(t, p, x, pivot);
  merge_over_lanes(t, p.lane, mine, room);
  if (p.lane != 0 || !p.live) return;
  const std::size_t second = std::size_t{t.channels} * t.slabs;
#pragma unroll
  for (unsigned k = 0; k < Width; ++k) {
    const std::size_t at = std::size_t{p.channel + k} * t.slabs + p.slab;
    scratch[at] = mine.mean[k];
    scratch[second + at] = mine.m2[k];
  }
}

/// Statistics from the slabs' moments: one warp per channel; every slab has at least one row.
template <class T>
KD_KERNEL void __launch_bounds__(norm_threads)
    norm_finish_moments(channel_tiling t, const T* x, const float* scratch, norm_statistics out) {
  const unsigned lane = threadIdx.x % warp_size;
  const unsigned channel = blockIdx.x * (norm_threads / warp_size) + threadIdx.x / warp_size;
  if (channel >= t.channels) return;  // a whole warp
  const float* means = scratch + std::size_t{channel} * t.slabs;
  const float* m2s = means + std::size_t{t.channels} * t.slabs;
  const auto rows_of = [&](unsigned slab) {
    const std::size_t begin = slab * t.rows_per_slab, left = t.rows - begin;
    return static_cast<double>(left < t.rows_per_slab ? left : t.rows_per_slab);
  };
  double sum = 0, m2 = 0;
#pragma unroll 4
  for (unsigned slab = lane; slab < t.slabs; slab += warp_size) sum += rows_of(slab) * static_cast<double>(means[slab]);
  const double count = static_cast<double>(t.rows), offset = warp_sum(sum) / count;
#pragma unroll 4
  for (unsigned slab = lane; slab < t.slabs; slab += warp_size) {
    const double deviation = static_cast<double>(means[slab]) - offset;
    m2 += static_cast<double>(m2s[slab]) + rows_of(slab) * deviation * deviation;
  }
  m2 = warp_sum(m2);
  if (lane == 0) out.finish(channel, count, static_cast<double>(to_float(x[channel])) + offset, m2);
}

/// y = (x - mean) * scale + beta, + residual where it is not null, then relu where wanted, over the rows of `p`.
/// Each element is read before it is written, by the same thread: y may be x or residual.
template <class T, unsigned Width>
__device__ void normalise_rows(const channel_tiling& t, const channel_place& p, const T* x, const T* residual,
                               bool relu, const float (&mean)[Width], const float (&scale)[Width],
                               const float (&beta)[Width], T* y) {
  for (std::size_t row = p.first; row < p.end; row += std::size_t{norm_rows} * t.lanes) {
    const row_batch rows(t, p, row);
    float value[norm_rows][Width], other[norm_rows][Width];
#pragma unroll
    for (unsigned r = 0; r < norm_rows; ++r) {
      if (rows.has(r)) {
        load_channels<Width>(x + rows.at(r), value[r]);
        if (residual != nullptr) load_channels<Width>(residual + rows.at(r), other[r]);
      }
    }
#pragma unroll
    for (unsigned r = 0; r < norm_rows; ++r) {
      if (rows.has(r)) {
#pragma unroll
        for (unsigned k = 0; k < Width; ++k) {
          float out = fmaf(value[r][k] - mean[k], scale[k], beta[k]);
          if (residual != nullptr) out += other[r][k];
          value[r][k] = relu && out < 0 ? 0.0f : out;  // NaN stays
        }
        store_channels<Width>(y + rows.at(r), value[r]);
      }
    }
  }
}

/// Normalises by `mean` and `spread`, [C]: 1 / sqrt(var + epsilon) in training, var in inference.
template <class T, unsigned Width, bool Training>
KD_KERNEL void __launch_bounds__(norm_threads)
    norm_normalise(channel_tiling t, const T* x, const float* gamma, const float* beta, const float* mean,
                   const float* spread, float epsilon, const T* residual, bool relu, T* y) {
  const auto p = channel_place::of<Width>(t);
  if (!p.live) return;
  float m[Width], scale[Width], shift[Width];
#pragma unroll
  for (unsigned k = 0; k < Width; ++k) {
    const float s = spread[p.channel + k];
    m[k] = mean[p.channel + k];
    scale[k] = Training ? gamma[p.channel + k] * s : gamma[p.channel + k] / sqrtf(s + epsilon);
    shift[k] = beta[p.channel + k];
  }
  normalise_rows(t, p, x, residual, relu, m, scale, shift, y);
}

/// The whole training pass of the block's channels; the tiling has one slab.
template <class T, unsigned Width>
KD_KERNEL void __launch_bounds__(norm_one_block_threads, 1)
    norm_forward_one_block(channel_tiling t, const T* x, const float* gamma, const float* beta, norm_statistics out,
                           const T* residual, bool relu, T* y) {
  __shared__ moment_room<norm_one_block_threads, Width> room;
  __shared__ float means[norm_one_block_channels], scales[norm_one_block_channels];
  const auto p = channel_place::of<Width>(t);
  float pivot[Width] = {};
  load_pivot(p, x, pivot);
  moments<Width> mine = row_moments(t, p, x, pivot);
  merge_over_lanes(t, p.lane, mine, room);
  // Lane 0 of each column has put down the block's moments; one thread per channel finishes them.
  __syncthreads();
  const unsigned c = blockIdx.x * t.columns * Width + threadIdx.x;
  if (threadIdx.x < t.columns * Width && c < t.channels) {
    const unsigned column = threadIdx.x / Width, k = threadIdx.x % Width;
    const double mean = static_cast<double>(to_float(x[c])) + static_cast<double>(room.mean[k][column]);
    out.finish(c, static_cast<double>(t.rows), mean, static_cast<double>(room.m2[k][column]));
    means[threadIdx.x] = out.saved_mean[c];
    scales[threadIdx.x] = gamma[c] * out.saved_inv_std[c];
  }
  // The means and scales are there; and where y is x, all have read the first row, which is overwritten next.
  __syncthreads();
  if (!p.live) return;
  float mean[Width], scale[Width], shift[Width];
#pragma unroll
  for (unsigned k = 0; k < Width; ++k) {
    mean[k] = means[p.column * Width + k];
    scale[k] = scales[p.column * Width + k];
    shift[k] = beta[p.channel + k];
  }
  normalise_rows(t, p, x, residual, relu, mean, scale, shift, y);
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
