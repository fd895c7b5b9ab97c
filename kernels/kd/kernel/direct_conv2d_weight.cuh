/// dw and db of a 3x3 convolution, from dy or from the gradient of its pooled output; two launches, no atomics.
///
///   dw[o,kh,kw,i] = sum over n, h, v of dy[n,h,v,o] * x[n,h+kh-1,v+kw-1,i],   db[o] = sum over n, h, v of dy[n,h,v,o]
///   Pooled: dy is d_pooled at the winner of each 2x2 window and 0 at the other three places; winner 4 passes nothing.
///
/// Shapes   x [n][height][width][in]; dy [n][height][width][out], or d_pooled and winners [n][height / 2][width / 2]
///          [out]; dw [out][3][3][in], db [out] or null, both overwritten. x and dy float or bfloat16, sums float.
/// Launch   direct_conv2d_backward_weight: `blocks` blocks of t.threads() threads, 256 at most, each for `tiles_each`
///          tiles in turn. A thread owns 9 taps of 4 input and 2 output channels, 72 sums in registers, and slides
///          along a strip of 2x2 windows: 8 float4 of x (the other 8 stay in registers) and 4 float2 of dy for 288
///          multiply-adds. The strips of a block are added through shared memory, in order, and its sums are written to
///          partial [block][t.partial()]. direct_conv2d_add_partials: ceil(t.partial() / 32) blocks of 1,024 threads
///          add those of all blocks in a fixed tree. Bits depend on geometry and batch alone, not on the GPU.
/// Shared   t.shared_bytes(): both tiles; LightNN 84 and 38 KiB. add_partials 4 KiB.
/// Bytes    x once and its borders, dy once, partial sums twice: LightNN at batch 128 4.2 + 0.5 MB and 2.8 + 2.4 MB,
///          113 and 151 MFLOP.
/// Limits   as direct_conv2d_forward; a NaN or infinity in x reaches dw even where dy is zero.
/// Sparsity zeros of a spread gradient are multiplied, for the reason that direct_conv2d_data.cuh gives: x at the
///          winner's place is one read of shared memory for 4 multiply-adds, here there are 24 for each read.
/// Expected on an H200 (never measured): 1.7 and 2.25 us of multiply-adds for LightNN's layers, about 4.5 and 5 us with
///          staging and the sums over strips, and 2 us for add_partials.
/// Checked  tests/cuda/direct_conv2d_test.cpp; bench/cuda/direct_conv2d_bench.cpp.
#pragma once

#include "kd/kernel/direct_conv2d_tile.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {
namespace direct_conv {

inline constexpr unsigned weight_threads_at_most = 256;
/// Outputs of dw that a thread owns: 9 taps, `components` input channels, two output channels; and two of db.
__host__ __device__ constexpr unsigned sums_per_thread(unsigned components) { return taps * components * 2 + 2; }

/// The tiles of direct_conv2d_backward_weight and who does what in one: a unit of threads covers all of dw, and each
/// unit takes a strip of `strip_windows` 2x2 windows of outputs in a row. Strips count down first, then across.
struct weight_tiling {
  unsigned height, width, in_channels, out_channels;
  unsigned strip_windows, strips_down, strips_across;

  __host__ __device__ constexpr unsigned tile_rows() const { return 2 * strips_down; }
  __host__ __device__ constexpr unsigned tile_columns() const { return 2 * strip_windows * strips_across; }
  __host__ __device__ constexpr unsigned tiles_across() const { return (width + tile_columns() - 1) / tile_columns(); }
  __host__ __device__ constexpr unsigned tiles() const {
    return (height + tile_rows() - 1) / tile_rows() * tiles_across();
  }
  __host__ __device__ constexpr unsigned components() const { return in_channels <= 3 ? 3 : 4; }
  __host__ __device__ constexpr unsigned in_groups() const { return (in_channels + 3) / 4; }
  __host__ __device__ constexpr unsigned out_pairs() const { return (out_channels + 1) / 2; }
  __host__ __device__ constexpr unsigned unit() const { return in_groups() * out_pairs(); }
  __host__ __device__ constexpr unsigned strips() const { return strips_down * strips_across; }
  /// Threads of a block: whole warps.
  __host__ __device__ constexpr unsigned threads() const { return (unit() * strips() + 31) / 32 * 32; }
  /// Floats of one block's partial sums.
  __host__ __device__ constexpr unsigned partial() const { return sums_per_thread(components()) * unit(); }
  /// From one value to the next where the threads' sums meet; a unit's threads of four values meet all banks.
  __host__ __device__ constexpr unsigned room_pitch() const { return threads() + unit(); }

  __host__ __device__ constexpr bordered_layout x_layout() const { return {tile_rows(), tile_columns()}; }
  __host__ __device__ constexpr pixel_layout dy_layout() const {
    return {tile_rows(), tile_columns(), (out_channels + 3) / 4};
  }
  __host__ __device__ constexpr std::size_t shared_bytes() const {
    const std::size_t tiles = std::size_t{x_layout().size(in_groups()) + dy_layout().size()} * sizeof(float4);
    const std::size_t room = std::size_t{3 * components() * 2 * room_pitch()} * sizeof(float);
    return tiles > room ? tiles : room;
  }
};

template <unsigned Components>
using weight_sums = float[3][3][Components][2];

/// sums += the products of a 2x2 window of dy (two channels) and the 4x4 pixels of x that it meets: four rows of two
/// columns on the left and two on the right.
template <unsigned Components>
__device__ void add_window(const float4 (&left)[4][2], const float4 (&right)[4][2], const float* dy, unsigned row_step,
                           unsigned column_step, weight_sums<Components>& sums, float (&bias)[2]) {
#pragma unroll
  for (unsigned q = 0; q < 4; ++q) {
    const float2 d = *reinterpret_cast<const float2*>(dy + q / 2 * row_step + q % 2 * column_step);
    bias[0] += d.x;
    bias[1] += d.y;
#pragma unroll
    for (unsigned tap = 0; tap < taps; ++tap) {
      const unsigned row = q / 2 + tap / 3, column = q % 2 + tap % 3;
      const float4& pixel = column < 2 ? left[row][column % 2] : right[row][column % 2];
#pragma unroll
      for (unsigned k = 0; k < Components; ++k) {
        sums[tap / 3][tap % 3][k][0] += component(pixel, k) * d.x;
        sums[tap / 3][tap % 3][k][1] += component(pixel, k) * d.y;
      }
    }
  }
}

/// Two columns of four rows of x; `column` points to the even one.
__device__ inline void load_columns(const float4* column, const bordered_layout& layout, float4 (&pixels)[4][2]) {
#pragma unroll
  for (unsigned row = 0; row < 4; ++row) {
    pixels[row][0] = column[row * layout.pitch];
    pixels[row][1] = column[row * layout.pitch + layout.half];
  }
}

/// values[v] of the strips of each unit, added in order of the strips: partial[v][unit]. Uses `room` after a barrier.
template <unsigned Values>
__device__ void add_strips(const weight_tiling& t, const float (&values)[Values], float* room,
                           float* __restrict__ partial) {
  const unsigned unit = t.unit(), strips = t.strips();
  __syncthreads();  // the tiles, or the values before, have been read by all
  if (threadIdx.x < unit * strips) {
#pragma unroll
    for (unsigned v = 0; v < Values; ++v) room[v * t.room_pitch() + threadIdx.x] = values[v];
  }
  __syncthreads();  // the values of all strips are there
  for (unsigned e = threadIdx.x; e < Values * unit; e += blockDim.x) {
    const float* value = room + e / unit * t.room_pitch() + e % unit;
    float sum = 0;
#pragma unroll 4
    for (unsigned s = 0; s < strips; ++s) sum += value[s * unit];
    partial[e] = sum;
  }
}

}  // namespace direct_conv

/// Adds tiles [tiles_each * block, tiles_each * (block + 1)) of `all_tiles`; partial is [block][t.partial()].
template <class T, unsigned Components, bool Pool>
KD_KERNEL void __launch_bounds__(direct_conv::weight_threads_at_most, 1)
    direct_conv2d_backward_weight(direct_conv::weight_tiling t, unsigned all_tiles, unsigned tiles_each,
                                  const T* __restrict__ x, const T* __restrict__ dy,
                                  const std::uint8_t* __restrict__ winners, float* __restrict__ partial) {
  namespace dc = direct_conv;
  KD_DYNAMIC_SHARED(float4, x_tile);
  const dc::bordered_layout x_layout = t.x_layout();
  const dc::pixel_layout dy_layout = t.dy_layout();
  const dc::image_size in{t.height, t.width, t.in_channels}, out{t.height, t.width, t.out_channels};
  float4* const dy_tile = x_tile + x_layout.size(t.in_groups());

  const unsigned strip = threadIdx.x / t.unit(), in_unit = threadIdx.x % t.unit();
  const unsigned pair = in_unit % t.out_pairs(), group = in_unit / t.out_pairs();
  const unsigned row = strip % t.strips_down * 2, window = strip / t.strips_down * t.strip_windows;
  const bool idle = strip >= t.strips();
  const unsigned column_step = dy_layout.groups * 4, row_step = dy_layout.pitch * 4;

  dc::weight_sums<Components> sums = {};
  float bias[2] = {};
  const unsigned begin = blockIdx.x * tiles_each, across = t.tiles_across(), tiles = t.tiles();
  for (unsigned tile = begin; tile < begin + tiles_each && tile < all_tiles; ++tile) {
    const std::size_t sample = tile / tiles;
    const unsigned of_sample = tile % tiles, down = of_sample / across;
    const unsigned first_row = down * t.tile_rows(), first_column = (of_sample - down * across) * t.tile_columns();
    if (tile != begin) __syncthreads();  // the tile before has been read by all
    dc::stage_image(x_tile, x_layout, x + sample * t.height * t.width * t.in_channels, in, first_row, first_column);
    if constexpr (Pool) {
      const std::size_t image = sample * (t.height / 2) * (t.width / 2) * t.out_channels;
      dc::stage_pooled_gradient(dy_tile, dy_layout, dy + image, winners + image, out, first_row, first_column);
    } else {
      dc::stage_image(dy_tile, dy_layout, dy + sample * t.height * t.width * t.out_channels, out, first_row,
                      first_column);
    }
    __syncthreads();  // both tiles are whole
    if (idle) continue;

    const float4* columns = x_tile + x_layout.place(group, row, 2 * window);
    const float* d = reinterpret_cast<const float*>(dy_tile + dy_layout.place(0, row, 2 * window)) + 2 * pair;
    float4 left[4][2], right[4][2];
    dc::load_columns(columns, x_layout, left);
#pragma unroll 1
    for (unsigned w = 0; w < t.strip_windows; w += 2, columns += 2, d += 4 * column_step) {
      dc::load_columns(columns + 1, x_layout, right);
      dc::add_window<Components>(left, right, d, row_step, column_step, sums, bias);
      if (w + 1 == t.strip_windows) break;
      dc::load_columns(columns + 2, x_layout, left);
      dc::add_window<Components>(right, left, d + 2 * column_step, row_step, column_step, sums, bias);
    }
  }

  float* const room = reinterpret_cast<float*>(x_tile);
  float* to = partial + std::size_t{blockIdx.x} * t.partial();
  constexpr unsigned row_values = 3 * Components * 2;
#pragma unroll
  for (unsigned kh = 0; kh < 3; ++kh, to += row_values * t.unit()) {
    float values[row_values];
#pragma unroll
    for (unsigned v = 0; v < row_values; ++v) values[v] = sums[kh][v / (Components * 2)][v / 2 % Components][v % 2];
    dc::add_strips(t, values, room, to);
  }
  dc::add_strips(t, bias, room, to);
}

/// Parts of the sums over blocks, a warp each. On an H100 8 parts took 9.7 microseconds for LightNN's gradients, most
/// of them spent waiting for one load after the other.
inline constexpr unsigned partial_parts = 32;

/// dw and db (or null) = the sums of `blocks` rows of partial sums: partial_parts of them, each in order, then the
/// parts in order. Blocks of a warp for each part, one block for each 32 of the t.partial() columns.
template <unsigned Components>
KD_KERNEL void __launch_bounds__(partial_parts* warp_size)
    direct_conv2d_add_partials(direct_conv::weight_tiling t, unsigned blocks, const float* __restrict__ partial,
                               float* __restrict__ dw, float* __restrict__ db) {
  __shared__ float sums[partial_parts][warp_size];
  const unsigned lane = threadIdx.x % warp_size, part = threadIdx.x / warp_size;
  const unsigned e = blockIdx.x * warp_size + lane;
  float sum = 0;
  if (e < t.partial()) {
#pragma unroll 8
    for (unsigned b = part; b < blocks; b += partial_parts) sum += partial[std::size_t{b} * t.partial() + e];
  }
  sums[part][lane] = sum;
  __syncthreads();  // all parts are there
  if (part != 0 || e >= t.partial()) return;
#pragma unroll
  for (unsigned p = 1; p < partial_parts; ++p) sum += sums[p][lane];

  const unsigned value = e / t.unit(), in_unit = e % t.unit();
  const unsigned out = in_unit % t.out_pairs() * 2 + value % 2, group = in_unit / t.out_pairs();
  if (out >= t.out_channels) return;
  const unsigned tap = value / 2 / Components, channel = group * 4 + value / 2 % Components;
  if (tap == direct_conv::taps) {
    if (db != nullptr && group == 0) db[out] = sum;
  } else if (channel < t.in_channels) {
    dw[(out * direct_conv::taps + tap) * t.in_channels + channel] = sum;
  }
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
