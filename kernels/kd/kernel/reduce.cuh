/// Sums by fixed trees: the order of additions depends on shape and alignment, never on GPU or timing.
///
///   sum          out = sum of x[i], in double          x [n] floats; 4 bytes per element
///   column_sums  out[c] = sum of x[r][c], in float     x [rows][columns], float or bfloat16; sizeof(T) per element
/// sum: 256 threads; a block adds its part of the array, in 16-byte accesses, to one double; a second launch of one
/// block adds the partial sums. column_sums: 256 threads as rows x lanes, each lane adds Width neighbouring columns
/// over its share of the block's rows, then a tree over shared memory adds the shares; blocks (x: columns, y: rows)
/// leave partial rows that a second launch adds in the same way. Shared memory: 64 bytes; 4 to 8 KiB. Checked in
/// tests/cuda/reduce_test.cpp.
#pragma once

#include "kd/kernel/block.cuh"
#include "kd/kernel/elementwise.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

inline constexpr unsigned reduce_threads = 256;

/// @param part elements for each block, a multiple of 4
/// @param wide whether x is aligned to 16 bytes, where x is float
/// @param out [gridDim.x]
template <class T>
KD_KERNEL void __launch_bounds__(reduce_threads)
    sum(std::size_t n, std::size_t part, bool wide, const T* x, double* out) {
  __shared__ double room[reduce_threads / warp_size];
  const std::size_t begin = blockIdx.x * part, end = n - begin < part ? n : begin + part;
  std::size_t rest = begin;  // of what is added one by one
  double total = 0;
  if constexpr (sizeof(T) == sizeof(float)) {
    if (wide) rest += (end - begin) / 4 * 4;
    for (std::size_t i = begin + threadIdx.x * 4; i < rest; i += reduce_threads * 4) {
      float value[4];
      load_floats<4>(x + i, value);
      total += (double{value[0]} + double{value[1]}) + (double{value[2]} + double{value[3]});
    }
  }
  for (std::size_t i = rest + threadIdx.x; i < end; i += reduce_threads) total += x[i];
  total = block_sum<reduce_threads>(total, room);
  if (threadIdx.x == 0) out[blockIdx.x] = total;
}

/// @param lanes threads along the columns, a power of two; each has Width columns
/// @param part rows for each block
/// @param out [gridDim.y][columns]
template <class T, unsigned Width>
KD_KERNEL void __launch_bounds__(reduce_threads)
    column_sums(std::size_t rows, std::size_t columns, unsigned lanes, std::size_t part, const T* x, float* out) {
  __shared__ float room[reduce_threads * Width];  // [Width][share][lane]
  const unsigned lane = threadIdx.x % lanes, shares = reduce_threads / lanes;
  const std::size_t column = (std::size_t{blockIdx.x} * lanes + lane) * Width;
  const std::size_t begin = blockIdx.y * part, end = rows - begin < part ? rows : begin + part;
  float total[Width] = {};
  if (column < columns) {
#pragma unroll 4
    for (std::size_t row = begin + threadIdx.x / lanes; row < end; row += shares) {
      float value[Width];
      load_floats<Width>(x + row * columns + column, value);
#pragma unroll
      for (unsigned j = 0; j < Width; ++j) total[j] += value[j];
    }
  }
#pragma unroll
  for (unsigned j = 0; j < Width; ++j) room[j * reduce_threads + threadIdx.x] = total[j];
  for (unsigned half = shares / 2; half > 0; half /= 2) {
    __syncthreads();  // the shares of the larger half are in the room
    if (threadIdx.x < half * lanes) {
#pragma unroll
      for (unsigned j = 0; j < Width; ++j)
        room[j * reduce_threads + threadIdx.x] += room[j * reduce_threads + threadIdx.x + half * lanes];
    }
  }
  // What a thread writes here it has added itself: share 0, its own lane.
  if (threadIdx.x < lanes && column < columns) {
#pragma unroll
    for (unsigned j = 0; j < Width; ++j)
      out[blockIdx.y * columns + column + j] = room[j * reduce_threads + threadIdx.x];
  }
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
