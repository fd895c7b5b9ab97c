/// y = 3x3 convolution + bias [, relu [, 2x2 max pool]] for up to 16 input and 32 output channels, by direct sums.
///
///   y[n,h,v,o] = bias[o] + sum over i, kh, kw of w[o,kh,kw,i] * x[n,h+kh-1,v+kw-1,i]     (cross-correlation)
///   relu: 0 where y < 0; a NaN stays. Pool: the maximum of each 2x2 window, 0 where it is below 0, and its winner.
///
/// Shapes   x [n][height][width][in], w [out][3][3][in], bias [out] or null, y [n][height][width][out], or pooled:
///          y and winners [n][height / 2][width / 2][out]. x and y float or bfloat16, sums float.
/// Launch   one block for each tile of a sample, n * t.tiles in all, of t.threads(out, groups) threads, whole warps and
///          256 at most; groups = ceil(in / 4) of Components = 4, but one of 3 for up to three channels. A thread sums
///          4x2 pixels of 4 output channels: its 6x4 pixels of 4 input channels stay in registers while 9 * 4 float4 of
///          weights pass, 19 multiply-adds for each 16 bytes out of shared memory; the three channels of images in
///          colour are summed as three. Two threads share the groups where there are several. The threads of one window
///          that differ in output channels are neighbours, so that a warp reads 8 pixels and 4 groups of weights at a
///          time, and writes whole sectors.
/// Shared   t.shared_bytes(out, groups, components): the tile with its border and all weights; LightNN 8 and 33 KiB.
/// Bytes    each pixel of x 1 + 2 / tile_rows + 2 / tile_columns times at most (out of cache but once), y once. LightNN
///          at batch 128: 4.2 MB and 2.7 MB for 113 and 151 MFLOP, so that multiply-adds are the limit on every GPU.
/// Limits   in 1 to 16, out 1 to 32; height and width below 32,768, even to pool; no NaN or infinity in w. Images below
///          8x8 leave most threads of an SM idle.
/// Expected on an H200 (132 SMs, 67 TFLOP/s; never measured): the multiply-adds alone cost 1.7 us for LightNN's first
///          layer and 2.25 for its second at batch 128; with staging about 3.5 and 4.5 us. The second layer has 128
///          tiles, two warps for each scheduler: latency, not throughput, is what to look for in its profile.
/// Checked  tests/cuda/direct_conv2d_test.cpp; bench/cuda/direct_conv2d_bench.cpp.
#pragma once

#include "kd/kernel/direct_conv2d_sums.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {
namespace direct_conv {

/// weights[group][tap][component][out] from w[out][tap][in], zeros where a channel does not exist; no barrier. A warp
/// reads runs of 8 values of four output channels and writes all banks.
template <unsigned Components>
__device__ void stage_weights(float4* weights, const tiling& t, const float* __restrict__ w) {
  float* const values = reinterpret_cast<float*>(weights);
  const unsigned out_groups = (t.out_channels + 3) / 4, stride = weight_stride(t.out_channels) * 4;
  const short_division in((t.in_channels + Components - 1) / Components * Components), outs(out_groups);
  constexpr unsigned nowhere = 0xffffffffu;
  const unsigned lane = threadIdx.x % warp_size, run = taps * in.divisor, runs = (run + 7) / 8 * out_groups;
  const unsigned warps = blockDim.x / warp_size;
  for (unsigned first = threadIdx.x / warp_size; first < runs; first += weight_loads_at_once * warps) {
    float value[weight_loads_at_once];
    unsigned place[weight_loads_at_once];
#pragma unroll
    for (unsigned u = 0; u < weight_loads_at_once; ++u) {
      const unsigned item = first + u * warps, part = outs.quotient(item), j = part * 8 + lane % 8;
      const unsigned out = (item - part * out_groups) * 4 + lane / 8;
      const unsigned tap = in.quotient(j), channel = j - tap * in.divisor;
      place[u] = nowhere;
      value[u] = 0;
      if (item >= runs || j >= run) continue;
      place[u] = ((channel / Components * taps + tap) * Components + channel % Components) * stride + out;
      if (channel < t.in_channels && out < t.out_channels) value[u] = w[(out * taps + tap) * t.in_channels + channel];
    }
#pragma unroll
    for (unsigned u = 0; u < weight_loads_at_once; ++u)
      if (place[u] != nowhere) values[place[u]] = value[u];
  }
}

/// The maximum of a window, 0 below 0, and its place; the first of equal ones; a NaN before any number, the
/// last of several, as PyTorch.
__device__ inline float pool_window(float a, float b, float c, float d, std::uint32_t& winner) {
  float best = a;
  winner = 0;
  const auto meet = [&](float here, std::uint32_t place) {
    if (here > best || here != here) {
      best = here;
      winner = place;
    }
  };
  meet(b, 1);
  meet(c, 2);
  meet(d, 3);
  if (best <= 0) {
    best = 0;
    winner = no_winner;
  }
  return best;
}

}  // namespace direct_conv

template <class T, unsigned Components, bool Pool>
KD_KERNEL void __launch_bounds__(direct_conv::threads_at_most, 2)
    direct_conv2d_forward(direct_conv::tiling t, const T* __restrict__ x, const float* __restrict__ w,
                          const float* __restrict__ bias, bool relu, T* __restrict__ y,
                          std::uint8_t* __restrict__ winners) {
  namespace dc = direct_conv;
  KD_DYNAMIC_SHARED(float4, tile);
  const dc::bordered_layout layout(t.tile_rows, t.tile_columns);
  const dc::image_size in{t.height, t.width, t.in_channels};
  const unsigned groups = (t.in_channels + Components - 1) / Components, stride = dc::weight_stride(t.out_channels);
  float4* const weights = tile + layout.size(groups);
  const dc::thread_place at(t, t.out_channels);

  dc::stage_weights<Components>(weights, t, w);
  dc::stage_image(tile, layout, x + at.sample * t.height * t.width * t.in_channels, in, at.first_row, at.first_column);
  __syncthreads();  // tile and weights are whole

  dc::thread_sums sums = {};
  dc::sum_groups<Components>(at, layout, tile, groups, weights, stride, sums);
  if (at.idle || at.part != 0) return;

  const unsigned channel = at.group * 4, h = at.first_row + at.row, v = at.first_column + at.column;
  if (bias != nullptr) {
    const float4 shift = dc::load_channels<false>(bias, channel, t.out_channels);
#pragma unroll
    for (unsigned i = 0; i < dc::thread_rows * dc::thread_columns; ++i) {
#pragma unroll
      for (unsigned k = 0; k < 4; ++k) sums[i / 2][i % 2][k] += dc::component(shift, k);
    }
  }
  if constexpr (Pool) {
    const std::size_t image = at.sample * (t.height / 2) * (t.width / 2);
    const bool fours = dc::in_fours(y, t.out_channels) && dc::in_fours(winners, t.out_channels);
#pragma unroll
    for (unsigned row = 0; row < dc::thread_rows; row += 2) {
      if (h + row >= t.height || v >= t.width) continue;
      const std::size_t pixel = (image + (h + row) / 2 * (t.width / 2) + v / 2) * t.out_channels;
      std::uint32_t won[4];
      float best[4];
#pragma unroll
      for (unsigned k = 0; k < 4; ++k)
        best[k] = dc::pool_window(sums[row][0][k], sums[row][1][k], sums[row + 1][0][k], sums[row + 1][1][k], won[k]);
      dc::store_channels(y + pixel, channel, t.out_channels, fours, {best[0], best[1], best[2], best[3]});
      dc::store_winners(winners + pixel, channel, t.out_channels, fours,
                        won[0] | won[1] << 8 | won[2] << 16 | won[3] << 24);
    }
  } else {
    const bool fours = dc::in_fours(y, t.out_channels);
    const auto cut = [relu](float sum) { return relu && sum < 0 ? 0.0f : sum; };  // a NaN stays
#pragma unroll
    for (unsigned i = 0; i < dc::thread_rows * dc::thread_columns; ++i) {
      const unsigned row = h + i / 2, column = v + i % 2;
      if (row >= t.height || column >= t.width) continue;
      const float(&sum)[4] = sums[i / 2][i % 2];
      dc::store_channels(y + ((at.sample * t.height + row) * t.width + column) * t.out_channels, channel,
                         t.out_channels, fours, {cut(sum[0]), cut(sum[1]), cut(sum[2]), cut(sum[3])});
    }
  }
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
