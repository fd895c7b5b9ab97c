/// Bias, relu and 2x2 max pool of a convolution's output in one pass: for convolutions that end in a library.
///
///   y[n,oh,ow,c] = max(0, max over the 2x2 window of x[n,2 oh + i,2 ow + j,c] + bias[c])
///   winner = 2 i + j of the first maximum; a NaN wins over every number; 4 where relu made it 0
///
/// x [n][height][width][channels], y and winners (bytes) [n][height / 2][width / 2][channels]; T is float or bfloat16,
/// sums are float. With odd extents the last row or column has no window. The gradient is max_pool_backward of
/// pool.cuh, which gives nothing to a winner of 4.
///
/// Launch (kd/cuda/relu_pool.hpp): a thread per column of 4 channels of a pooled pixel (of 1, where C % 4 != 0 or an
/// array is not aligned to 4 elements), up to 256 threads within one sample, no shared memory.
///
/// Bytes moved: x read, y and winners written, each once; 4.25 + 1 elements of float per pooled value.
///
/// Limits: samples of fewer than 2^31 values; at most 2^31 - 1 blocks. Checked by tests/cuda/conv2d_test.cpp.
#pragma once

#include "kd/kernel/pool.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// bias may be null. g has kernel and stride 2 and no padding.
template <class T, unsigned Width>
KD_KERNEL void __launch_bounds__(pool_threads)
    bias_relu_pool(pool_geometry g, unsigned blocks, const T* x, const float* bias, T* y, std::uint8_t* winners) {
  const auto p = pool_place::of<Width>(blocks, g.channels, g.out_height, g.out_width);
  if (!p.live) return;
  const T* window =
      x + p.sample * g.in_size() + std::size_t{2 * p.row * g.in_width + 2 * p.column} * g.channels + p.channel;
  float value[4][Width];
#pragma unroll
  for (unsigned q = 0; q < 4; ++q)
    load_channels<Width>(window + std::size_t{q / 2 * g.in_width + q % 2} * g.channels, value[q]);
  float shift[Width] = {};
  if (bias != nullptr) {
#pragma unroll
    for (unsigned k = 0; k < Width; ++k) shift[k] = bias[p.channel + k];
  }
  pool_maximum<Width> maximum;
#pragma unroll
  for (unsigned q = 0; q < 4; ++q) {
#pragma unroll
    for (unsigned k = 0; k < Width; ++k) value[q][k] += shift[k];
    maximum.take(value[q], q);
  }
#pragma unroll
  for (unsigned k = 0; k < Width; ++k) {
    const bool cut = maximum.best[k] <= 0.0f;  // false for NaN, which passes
    maximum.best[k] = cut ? 0.0f : maximum.best[k];
    maximum.tap[k] = cut ? 4u : maximum.tap[k];
  }
  const std::size_t at = p.sample * g.out_size() + std::size_t{p.row * g.out_width + p.column} * g.channels + p.channel;
  store_channels<Width>(y + at, maximum.best);
  store_winners<Width>(winners + at, maximum.tap);
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
