/// dx (+)= the data gradient of a 3x3 convolution, from dy or from the gradient of its pooled output.
///
///   dx[n,h,v,i] (+)= sum over o, kh, kw of w[o,kh,kw,i] * dy[n,h-kh+1,v-kw+1,o]
///   Pooled: dy is d_pooled at the winner of each 2x2 window and 0 at the other three places; winner 4 passes nothing.
///
/// Shapes   dy [n][height][width][out], or d_pooled and winners [n][height / 2][width / 2][out]; w [out][3][3][in];
///          dx [n][height][width][in]. dy and dx float or bfloat16, sums float; dx is read only if `accumulate`.
/// Launch   as direct_conv2d_forward, whose sums these are with the weights turned by 180 degrees and in and out
///          exchanged: n * t.tiles blocks of t.threads(in, groups) threads, groups = ceil(out / 4).
/// Shared   t.shared_bytes(in, groups, 4): LightNN's second layer 33 KiB. The pooled gradient is spread out while it is
/// staged. Bytes    LightNN's second layer at batch 128: 0.65 MB in (0.52 values, 0.13 winners), 2.1 MB out; 151 MFLOP.
/// Limits   as direct_conv2d_forward.
/// Sparsity three quarters of a spread gradient are zeros, and yet all is multiplied: a thread that visits the winners
///          alone needs the weights at a place that the winner decides, 16 bytes of shared memory for every 4
///          multiply-adds instead of 19, which costs what it saves. To be tried once it can be measured.
/// Expected on an H200 (never measured): 2.25 us of multiply-adds for LightNN's second layer, about 4.5 us in all.
/// Checked  tests/cuda/direct_conv2d_test.cpp; bench/cuda/direct_conv2d_bench.cpp.
#pragma once

#include "kd/kernel/direct_conv2d_sums.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {
namespace direct_conv {

/// weights[group of out][tap][out][in] from w[out][8 - tap][in], zeros where a channel does not exist; no barrier.
__device__ inline void stage_turned_weights(float4* weights, const tiling& t, const float* __restrict__ w) {
  float* const values = reinterpret_cast<float*>(weights);
  const unsigned padded_in = (t.in_channels + 3) / 4 * 4, stride = weight_stride(t.in_channels) * 4;
  const unsigned rows = (t.out_channels + 3) / 4 * 4 * taps, at_once = blockDim.x / padded_in;
  const unsigned in = threadIdx.x % padded_in;
  if (threadIdx.x >= at_once * padded_in) return;
  for (unsigned first = threadIdx.x / padded_in; first < rows; first += weight_loads_at_once * at_once) {
    float value[weight_loads_at_once];
#pragma unroll
    for (unsigned u = 0; u < weight_loads_at_once; ++u) {
      const unsigned row = first + u * at_once;
      value[u] = 0;
      if (row / taps < t.out_channels && in < t.in_channels) value[u] = w[row * t.in_channels + in];
    }
#pragma unroll
    for (unsigned u = 0; u < weight_loads_at_once; ++u) {
      const unsigned row = first + u * at_once, out = row / taps, tap = row % taps;
      if (row < rows) values[((out / 4 * taps + taps - 1 - tap) * 4 + out % 4) * stride + in] = value[u];
    }
  }
}

}  // namespace direct_conv

template <class T, bool Pool>
KD_KERNEL void __launch_bounds__(direct_conv::threads_at_most, 2)
    direct_conv2d_backward_data(direct_conv::tiling t, const T* __restrict__ dy,
                                const std::uint8_t* __restrict__ winners, const float* __restrict__ w, bool accumulate,
                                T* __restrict__ dx) {
  namespace dc = direct_conv;
  KD_DYNAMIC_SHARED(float4, tile);
  const dc::bordered_layout layout(t.tile_rows, t.tile_columns);
  const dc::image_size out{t.height, t.width, t.out_channels};
  const unsigned stride = dc::weight_stride(t.in_channels);
  float4* const weights = tile + layout.size(out.groups());
  const dc::thread_place at(t, t.in_channels);

  dc::stage_turned_weights(weights, t, w);
  if constexpr (Pool) {
    const std::size_t image = at.sample * (t.height / 2) * (t.width / 2) * t.out_channels;
    dc::stage_pooled_gradient(tile, layout, dy + image, winners + image, out, at.first_row, at.first_column);
  } else {
    dc::stage_image(tile, layout, dy + at.sample * t.height * t.width * t.out_channels, out, at.first_row,
                    at.first_column);
  }
  __syncthreads();  // tile and weights are whole

  dc::thread_sums sums = {};
  dc::sum_groups<4>(at, layout, tile, out.groups(), weights, stride, sums);
  if (at.idle || at.part != 0) return;

  const bool fours = dc::in_fours(dx, t.in_channels);
  const unsigned channel = at.group * 4;
#pragma unroll
  for (unsigned i = 0; i < dc::thread_rows * dc::thread_columns; ++i) {
    const unsigned row = at.first_row + at.row + i / 2, column = at.first_column + at.column + i % 2;
    if (row >= t.height || column >= t.width) continue;
    T* const pixel = dx + ((at.sample * t.height + row) * t.width + column) * t.in_channels;
    const float(&sum)[4] = sums[i / 2][i % 2];
    float4 before{0, 0, 0, 0};
    if (accumulate)
      before = fours ? dc::load_four(pixel + channel) : dc::load_channels<false>(pixel, channel, t.in_channels);
    dc::store_channels(pixel, channel, t.in_channels, fours,
                       {before.x + sum[0], before.y + sum[1], before.z + sum[2], before.w + sum[3]});
  }
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
