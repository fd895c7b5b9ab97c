/// Pooling of NHWC images: maximum over windows, mean over the whole image; forward and backward.
///
///   max     y[n,oh,ow,c] = max over kh, kw of x[n, oh stride + kh - padding, ow stride + kw - padding, c], without
///           padding; winner = kh kernel + kw of the first maximum. A NaN wins over every number, the last of several
///           (PyTorch's rule: a value takes over if it is greater or NaN).
///           dx[n,h,w,c] = sum of dy over the windows that hold (h, w) and whose winner it is, in the windows' order
///   mean    y[n,c] = sum over h, w of x[n,h,w,c] / (H W);  dx[n,h,w,c] = dy[n,c] / (H W)
///
/// x, y, dy, dx float or bfloat16, winners one byte; sums are float. Gradients are gathered by each input pixel:
/// nothing is added in memory, so that no atomics and no zeroing are needed and the order is fixed.
///
/// Launches (kd/cuda/pool.hpp chooses): a thread per column of 4 channels of a pixel (of 1, where C % 4 != 0 or an
/// array is not aligned to 4 elements), blocks of up to 256 threads within one sample, no shared memory. Kernels 2 and
/// 3 and windows that overlap at most twice along an axis are unrolled, so that all their loads are under way at once.
/// global_avg_pool cuts the pixels of a column over up to 32 lanes, 256 threads, 4 KiB of static shared memory.
///
/// Bytes moved: max forward x read, y and winners written; backward dy and winners read, dx written: each once,
/// overlaps from the caches. Mean: x read, y written; dy read, dx written.
///
/// Predicted, not measured, at 4.3 TB/s (an H200's copy), batch 128, float: ResNet18's 3x3/2 on [64,16,16] 11.0 MB,
/// 2.6 us forward and as much backward; LightNN's 2x2 on [16,32,32] likewise; the mean of [512,1,1] 0.5 MB: a launch.
///
/// Limits: kernel 1 to 15, padding at most half of it; samples of fewer than 2^31 values; at most 2^31 - 1 blocks.
///
/// Checked by tests/cuda/pool_test.cpp.
#pragma once

#include "kd/kernel/channels.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

inline constexpr unsigned pool_threads = 256;
inline constexpr unsigned pool_largest_kernel = 15;  // taps are kept in one byte

/// The images of a max pool; `in` is the pooled image, `out` the result.
struct pool_geometry {
  unsigned channels, in_height, in_width, out_height, out_width, kernel, stride, padding;

  __host__ __device__ std::size_t in_size() const { return std::size_t{in_height} * in_width * channels; }
  __host__ __device__ std::size_t out_size() const { return std::size_t{out_height} * out_width * channels; }
};

/// The column of Width channels of a pixel that a thread takes, where each sample has `blocks` blocks.
struct pool_place {
  std::size_t sample;
  unsigned row, column, channel;
  bool live;

  template <unsigned Width>
  static __device__ pool_place of(unsigned blocks, unsigned channels, unsigned height, unsigned width) {
    pool_place p{};
    p.sample = blockIdx.x / blocks;
    const unsigned i = blockIdx.x % blocks * blockDim.x + threadIdx.x, vectors = channels / Width, pixel = i / vectors;
    p.live = pixel < height * width;
    p.channel = i % vectors * Width;
    p.row = pixel / width;
    p.column = pixel % width;
    return p;
  }
};

/// Winners of Width neighbouring channels; `from` and `to` are aligned to Width bytes.
template <unsigned Width>
__device__ void load_winners(const std::uint8_t* from, unsigned (&to)[Width]) {
  const auto vector = *reinterpret_cast<const channel_vector<std::uint8_t, Width>*>(from);
#pragma unroll
  for (unsigned k = 0; k < Width; ++k) to[k] = vector.values[k];
}
template <unsigned Width>
__device__ void store_winners(std::uint8_t* to, const unsigned (&from)[Width]) {
  channel_vector<std::uint8_t, Width> vector;
#pragma unroll
  for (unsigned k = 0; k < Width; ++k) vector.values[k] = static_cast<std::uint8_t>(from[k]);
  *reinterpret_cast<channel_vector<std::uint8_t, Width>*>(to) = vector;
}

/// The maximum so far of Width channels, and its tap.
template <unsigned Width>
struct pool_maximum {
  float best[Width] = {};
  unsigned tap[Width] = {};
  bool any = false;

  __device__ void take(const float (&value)[Width], unsigned from) {
#pragma unroll
    for (unsigned k = 0; k < Width; ++k) {
      const bool wins = !any || value[k] > best[k] || value[k] != value[k];
      best[k] = wins ? value[k] : best[k];
      tap[k] = wins ? from : tap[k];
    }
    any = true;
  }
};

/// Kernel 0 stands for any size, else it is g.kernel.
template <class T, unsigned Width, unsigned Kernel>
KD_KERNEL void __launch_bounds__(pool_threads)
    max_pool_forward(pool_geometry g, unsigned blocks, const T* x, T* y, std::uint8_t* winners) {
  const auto p = pool_place::of<Width>(blocks, g.channels, g.out_height, g.out_width);
  if (!p.live) return;
  const T* image = x + p.sample * g.in_size() + p.channel;
  // Rows and columns before the image wrap around to large numbers, beyond its end.
  const unsigned first_row = p.row * g.stride - g.padding, first_column = p.column * g.stride - g.padding;
  pool_maximum<Width> maximum;
  if constexpr (Kernel > 0) {
    float value[Kernel][Kernel][Width];
#pragma unroll
    for (unsigned kh = 0; kh < Kernel; ++kh)
#pragma unroll
      for (unsigned kw = 0; kw < Kernel; ++kw) {
        const unsigned h = first_row + kh, w = first_column + kw;
        if (h < g.in_height && w < g.in_width)
          load_channels<Width>(image + std::size_t{h * g.in_width + w} * g.channels, value[kh][kw]);
      }
#pragma unroll
    for (unsigned kh = 0; kh < Kernel; ++kh)
#pragma unroll
      for (unsigned kw = 0; kw < Kernel; ++kw)
        if (first_row + kh < g.in_height && first_column + kw < g.in_width)
          maximum.take(value[kh][kw], kh * Kernel + kw);
  } else {
    for (unsigned kh = 0; kh < g.kernel; ++kh)
      for (unsigned kw = 0; kw < g.kernel; ++kw) {
        const unsigned h = first_row + kh, w = first_column + kw;
        if (h >= g.in_height || w >= g.in_width) continue;
        float value[Width];
        load_channels<Width>(image + std::size_t{h * g.in_width + w} * g.channels, value);
        maximum.take(value, kh * g.kernel + kw);
      }
  }
  const std::size_t at = p.sample * g.out_size() + std::size_t{p.row * g.out_width + p.column} * g.channels + p.channel;
  store_channels<Width>(y + at, maximum.best);
  store_winners<Width>(winners + at, maximum.tap);
}

/// The windows along one axis that hold input position `in`: outputs [begin, end).
struct pool_windows {
  unsigned begin, end;

  static __device__ pool_windows of(unsigned in, unsigned out_size, const pool_geometry& g) {
    const unsigned position = in + g.padding, limit = position / g.stride + 1;
    return {position < g.kernel ? 0 : (position - g.kernel) / g.stride + 1, limit < out_size ? limit : out_size};
  }
};

/// Overlap is ceil(kernel / stride), the most windows along an axis that hold a pixel, or 0 for any number.
template <class T, unsigned Width, unsigned Overlap>
KD_KERNEL void __launch_bounds__(pool_threads)
    max_pool_backward(pool_geometry g, unsigned blocks, const T* dy, const std::uint8_t* winners, T* dx) {
  const auto p = pool_place::of<Width>(blocks, g.channels, g.in_height, g.in_width);
  if (!p.live) return;
  const auto rows = pool_windows::of(p.row, g.out_height, g), columns = pool_windows::of(p.column, g.out_width, g);
  const std::size_t image = p.sample * g.out_size() + p.channel;
  const auto at = [&](unsigned oh, unsigned ow) { return image + std::size_t{oh * g.out_width + ow} * g.channels; };
  const auto tap = [&](unsigned oh, unsigned ow) {
    return (p.row + g.padding - oh * g.stride) * g.kernel + (p.column + g.padding - ow * g.stride);
  };
  float sum[Width] = {};
  const auto add = [&](const float(&gradient)[Width], const unsigned(&winner)[Width], unsigned mine) {
#pragma unroll
    for (unsigned k = 0; k < Width; ++k) sum[k] += winner[k] == mine ? gradient[k] : 0.0f;
  };
  if constexpr (Overlap > 0) {
    float gradient[Overlap][Overlap][Width] = {};
    unsigned winner[Overlap][Overlap][Width] = {};
#pragma unroll
    for (unsigned i = 0; i < Overlap; ++i)
#pragma unroll
      for (unsigned j = 0; j < Overlap; ++j) {
        const unsigned oh = rows.begin + i, ow = columns.begin + j;
        if (oh < rows.end && ow < columns.end) {
          load_channels<Width>(dy + at(oh, ow), gradient[i][j]);
          load_winners<Width>(winners + at(oh, ow), winner[i][j]);
        }
      }
#pragma unroll
    for (unsigned i = 0; i < Overlap; ++i)
#pragma unroll
      for (unsigned j = 0; j < Overlap; ++j) {
        const unsigned oh = rows.begin + i, ow = columns.begin + j;
        if (oh < rows.end && ow < columns.end) add(gradient[i][j], winner[i][j], tap(oh, ow));
      }
  } else {
    for (unsigned oh = rows.begin; oh < rows.end; ++oh)
      for (unsigned ow = columns.begin; ow < columns.end; ++ow) {
        float gradient[Width];
        unsigned winner[Width];
        load_channels<Width>(dy + at(oh, ow), gradient);
        load_winners<Width>(winners + at(oh, ow), winner);
        add(gradient, winner, tap(oh, ow));
      }
  }
  store_channels<Width>(
      dx + p.sample * g.in_size() + std::size_t{p.row * g.in_width + p.column} * g.channels + p.channel, sum);
}

/// Mean over the pixels. A block takes pool_threads / lanes columns of [batch][channels / Width]; `lanes` is a power of
/// two.
template <class T, unsigned Width>
KD_KERNEL void __launch_bounds__(pool_threads)
    global_avg_pool_forward(std::size_t columns, unsigned channels, unsigned pixels, unsigned lanes, const T* x, T* y) {
  __shared__ lane_sum_room<pool_threads, Width> room;
  channel_tiling t{};
  t.columns = pool_threads / lanes;
  t.lanes = lanes;
  const unsigned lane = threadIdx.x / t.columns, vectors = channels / Width;
  const std::size_t column = std::size_t{blockIdx.x} * t.columns + threadIdx.x % t.columns;
  const std::size_t sample = column / vectors;
  const unsigned channel = static_cast<unsigned>(column % vectors) * Width;
  float sum[Width] = {};
  if (column < columns) {
    const T* from = x + sample * pixels * channels + channel;
#pragma unroll 8
    for (unsigned pixel = lane; pixel < pixels; pixel += lanes) {
      float value[Width];
      load_channels<Width>(from + std::size_t{pixel} * channels, value);
#pragma unroll
      for (unsigned k = 0; k < Width; ++k) sum[k] += value[k];
    }
  }
  sum_over_lanes(t, lane, sum, room);
  if (lane != 0 || column >= columns) return;
#pragma unroll
  for (unsigned k = 0; k < Width; ++k) sum[k] /= static_cast<float>(pixels);
  store_channels<Width>(y + sample * channels + channel, sum);
}

template <class T, unsigned Width>
KD_KERNEL void __launch_bounds__(pool_threads)
    global_avg_pool_backward(unsigned blocks, unsigned channels, unsigned pixels, const T* dy, T* dx) {
  const auto p = pool_place::of<Width>(blocks, channels, pixels, 1);
  if (!p.live) return;
  float gradient[Width];
  load_channels<Width>(dy + p.sample * channels + p.channel, gradient);
#pragma unroll
  for (unsigned k = 0; k < Width; ++k) gradient[k] /= static_cast<float>(pixels);
  store_channels<Width>(dx + (p.sample * pixels + p.row) * channels + p.channel, gradient);
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
