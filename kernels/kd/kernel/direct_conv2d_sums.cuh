/// The sums of the direct 3x3 convolutions, forward and for the data gradient: who sums what, and the loop.
///
/// From a staged tile and staged weights a thread sums 4x2 pixels of four output channels in registers.
/// direct_conv2d.cuh tells the cost.
#pragma once

#include "kd/kernel/direct_conv2d_tile.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {
namespace direct_conv {

/// Output pixels of a thread: two 2x2 windows, one above the other; and output channels.
inline constexpr unsigned thread_rows = 4, thread_columns = 2, thread_channels = 4;
using thread_sums = float[thread_rows][thread_columns][thread_channels];

/// From one float4 of weights to the next of the same output channels: odd, so that eight threads which write eight of
/// them meet all banks.
__host__ __device__ constexpr unsigned weight_stride(unsigned out_channels) { return (out_channels + 3) / 4 | 1; }

/// sums += the 3x3 neighbourhoods of the thread's pixels times the weights, over one group of `Components` channels.
///
/// `pixels` is the upper left corner of the neighbourhoods in a bordered_layout, `weights` the first of
/// [tap][component] float4 of four output channels, `stride` apart. 24 + 9 * Components reads of 16 bytes serve 288 *
/// Components multiply-adds.
template <unsigned Components>
__device__ void add_taps(const float4* pixels, const bordered_layout& layout, const float4* weights, unsigned stride,
                         thread_sums& sums) {
  float4 patch[thread_rows + 2][thread_columns + 2];
#pragma unroll
  for (unsigned row = 0; row < thread_rows + 2; ++row) {
#pragma unroll
    for (unsigned column = 0; column < thread_columns + 2; ++column)
      patch[row][column] = pixels[layout.place(0, row, column)];
  }
#pragma unroll
  for (unsigned tap = 0; tap < taps; ++tap) {
#pragma unroll
    for (unsigned k = 0; k < Components; ++k) {
      const float4 weight = weights[(tap * Components + k) * stride];
#pragma unroll
      for (unsigned row = 0; row < thread_rows; ++row) {
#pragma unroll
        for (unsigned column = 0; column < thread_columns; ++column) {
          const float pixel = component(patch[row + tap / 3][column + tap % 3], k);
          float(&sum)[thread_channels] = sums[row][column];
          sum[0] += pixel * weight.x;
          sum[1] += pixel * weight.y;
          sum[2] += pixel * weight.z;
          sum[3] += pixel * weight.w;
        }
      }
    }
  }
}

/// How the images of a batch are cut into tiles, one for each block. Tiles of a sample follow each other, row by row of
/// tiles; in a block the groups of output channels vary fastest, then the windows along a row.
///
/// With more than one group of channels to sum over, two threads share a thread's outputs, one takes the even groups
/// and one the odd: as many warps again, each half as long, to hide latencies where a GPU has few tiles for each
/// processor.
struct tiling {
  unsigned height, width, in_channels, out_channels;  // of the convolution, whichever way it is run
  unsigned tile_rows, tile_columns;                   // multiples of thread_rows and thread_columns
  unsigned across, tiles;                             // in a row of a sample, and in a sample

  constexpr tiling(unsigned image_height, unsigned image_width, unsigned in, unsigned out, unsigned rows,
                   unsigned columns)
      : height(image_height),
        width(image_width),
        in_channels(in),
        out_channels(out),
        tile_rows(rows),
        tile_columns(columns),
        across((width + columns - 1) / columns),
        tiles((height + rows - 1) / rows * across) {}
  /// Threads that `channels` written channels need, without their partners.
  __host__ __device__ constexpr unsigned outputs(unsigned channels) const {
    return tile_rows / thread_rows * (tile_columns / thread_columns) * ((channels + 3) / 4);
  }
  /// Threads of a part: whole warps.
  __host__ __device__ constexpr unsigned part_threads(unsigned channels) const {
    return (outputs(channels) + warp_size - 1) / warp_size * warp_size;
  }
  __host__ __device__ constexpr unsigned threads(unsigned channels, unsigned groups_read) const {
    return part_threads(channels) * (groups_read > 1 ? 2 : 1);
  }
  /// Shared memory for a tile and for weights of `groups_read` groups of `components` channels, or for what two parts
  /// exchange later.
  __host__ __device__ constexpr std::size_t shared_bytes(unsigned channels, unsigned groups_read,
                                                         unsigned components) const {
    const unsigned tile = bordered_layout(tile_rows, tile_columns).size(groups_read);
    const std::size_t staged =
        std::size_t{tile + groups_read * taps * components * weight_stride(channels)} * sizeof(float4);
    const std::size_t exchanged = groups_read > 1 ? sizeof(thread_sums) * part_threads(channels) : 0;
    return staged > exchanged ? staged : exchanged;
  }
};

/// Largest block of the forward pass and of the data gradient: two parts.
inline constexpr unsigned part_threads_at_most = 128, threads_at_most = 256;

struct thread_place {
  std::size_t sample;
  unsigned first_row, first_column;  // of the block's tile
  unsigned row, column, group;       // of the thread's first pixel in the tile; its four output channels
  unsigned part, parts, part_threads;
  bool idle;

  __device__ thread_place(const tiling& t, unsigned channels) {
    const unsigned of_batch = blockIdx.x / t.tiles, tile = blockIdx.x - of_batch * t.tiles;
    const unsigned down = tile / t.across, groups = (channels + 3) / 4;
    sample = of_batch;
    first_row = down * t.tile_rows;
    first_column = (tile - down * t.across) * t.tile_columns;
    part_threads = t.part_threads(channels);
    parts = blockDim.x / part_threads;
    part = threadIdx.x / part_threads;
    const unsigned in_part = threadIdx.x % part_threads;
    const unsigned windows = t.tile_columns / thread_columns, window = in_part / groups;
    group = in_part % groups;
    row = window / windows * thread_rows;
    column = window % windows * thread_columns;
    idle = in_part >= t.outputs(channels);
  }
};

/// sums over all `groups` of a tile, in the threads of the first part; every thread of the block calls. The tile and
/// the weights are overwritten where there are two parts.
template <unsigned Components>
__device__ void sum_groups(const thread_place& at, const bordered_layout& layout, float4* tile, unsigned groups,
                           const float4* weights, unsigned stride, thread_sums& sums) {
  if (!at.idle) {
    const float4* pixels = tile + layout.place(at.part, at.row, at.column);
    const float4* of_group = weights + at.part * taps * Components * stride + at.group;
#pragma unroll 1
    for (unsigned g = at.part; g < groups; g += at.parts) {
      add_taps<Components>(pixels, layout, of_group, stride, sums);
      pixels += at.parts * layout.plane;
      of_group += at.parts * taps * Components * stride;
    }
  }
  if (at.parts == 1) return;
  float* const room = reinterpret_cast<float*>(tile) + threadIdx.x % at.part_threads;
  constexpr unsigned values = sizeof(thread_sums) / sizeof(float);
  __syncthreads();  // both parts have read tile and weights
  if (at.part == 1) {
#pragma unroll
    for (unsigned i = 0; i < values; ++i) room[i * at.part_threads] = sums[i / 8][i / 4 % 2][i % 4];
  }
  __syncthreads();  // the second part's sums are there
  if (at.part == 0) {
#pragma unroll
    for (unsigned i = 0; i < values; ++i) sums[i / 8][i / 4 % 2][i % 4] += room[i * at.part_threads];
  }
}

}  // namespace direct_conv
}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
