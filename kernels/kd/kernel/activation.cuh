/// Elementwise layers of NHWC images and of rows: relu, sum, bias with relu, and flatten.
///
///   relu_forward   y = x < 0 ? 0 : x                 (NaN stays NaN)     2 sizeof(T) bytes per element
///   relu_backward  dx = y <= 0 ? 0 : dy              (y NaN passes dy)   3
///   add            y = a + b                                             3
///   bias_relu      y = relu(x + bias[channel])       either part optional  2
///   transpose      to[s][j][i] = from[s][i][j]       sizeof(From) + sizeof(To): flatten, there and back
/// T is float or bfloat16; arithmetic is float, each result rounded once. Outputs may be any of the inputs, except
/// transpose's, which read what other threads of other blocks write.
/// Launch: the elementwise loop; bias_relu's vectors never cross a pixel, so that it has them only where the width
/// divides the channels. transpose: 256 threads and one tile of a sample per block.
/// Limits: channels below 2^32; rows and columns of transpose below 2^31. Checked in tests/cuda/activation_test.cpp.
#pragma once

#include "kd/kernel/elementwise.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

template <class T>
struct relu_forward_of {
  const T* x;
  T* y;

  template <unsigned Width>
  __device__ void run(std::size_t i) const {
    float value[Width];
    load_floats<Width>(x + i, value);
#pragma unroll
    for (unsigned j = 0; j < Width; ++j) value[j] = value[j] < 0.0f ? 0.0f : value[j];
    store_floats<Width>(value, y + i);
  }
};

template <class T>
struct relu_backward_of {
  const T *y, *dy;
  T* dx;

  template <unsigned Width>
  __device__ void run(std::size_t i) const {
    float value[Width], gradient[Width];
    load_floats<Width>(y + i, value);
    load_floats<Width>(dy + i, gradient);
#pragma unroll
    for (unsigned j = 0; j < Width; ++j) gradient[j] = value[j] <= 0.0f ? 0.0f : gradient[j];
    store_floats<Width>(gradient, dx + i);
  }
};

template <class T>
struct add_of {
  const T *a, *b;
  T* y;

  template <unsigned Width>
  __device__ void run(std::size_t i) const {
    float left[Width], right[Width];
    load_floats<Width>(a + i, left);
    load_floats<Width>(b + i, right);
#pragma unroll
    for (unsigned j = 0; j < Width; ++j) left[j] += right[j];
    store_floats<Width>(left, y + i);
  }
};

template <class T>
struct bias_relu_of {
  const T* x;
  const float* bias;
  std::uint32_t channels;
  bool relu;
  T* y;

  template <unsigned Width>
  __device__ void run(std::size_t i) const {
    float value[Width];
    load_floats<Width>(x + i, value);
    if (bias != nullptr) {
      float shift[Width];
      load_floats<Width>(bias + remainder(i, channels), shift);
#pragma unroll
      for (unsigned j = 0; j < Width; ++j) value[j] += shift[j];
    }
    if (relu) {
#pragma unroll
      for (unsigned j = 0; j < Width; ++j) value[j] = value[j] < 0.0f ? 0.0f : value[j];
    }
    store_floats<Width>(value, y + i);
  }
};

template <class T>
KD_KERNEL void __launch_bounds__(elementwise_threads)
    relu_forward(std::size_t n, std::size_t vectors, const T* x, T* y) {
  elementwise<pack_width<T>>(n, vectors, relu_forward_of<T>{x, y});
}

template <class T>
KD_KERNEL void __launch_bounds__(elementwise_threads)
    relu_backward(std::size_t n, std::size_t vectors, const T* y, const T* dy, T* dx) {
  elementwise<pack_width<T>>(n, vectors, relu_backward_of<T>{y, dy, dx});
}

template <class T>
KD_KERNEL void __launch_bounds__(elementwise_threads)
    add(std::size_t n, std::size_t vectors, const T* a, const T* b, T* y) {
  elementwise<pack_width<T>>(n, vectors, add_of<T>{a, b, y});
}

/// @param bias [channels], may be null
template <class T>
KD_KERNEL void __launch_bounds__(elementwise_threads)
    bias_relu(std::size_t n, std::size_t vectors, const T* x, const float* bias, std::uint32_t channels, bool relu,
              T* y) {
  elementwise<pack_width<T>>(n, vectors, bias_relu_of<T>{x, bias, channels, relu, y});
}

inline constexpr unsigned transpose_threads = 256;
/// Elements of a tile, and floats of shared memory: two columns of 512 rows lie three apart.
inline constexpr unsigned transpose_tile = 1024, transpose_shared = 1536;

/// One matrix [rows][columns] per sample to [columns][rows]. Both sides are accessed along their last index, so that a
/// warp's accesses lie side by side; the tile lies in shared memory with an odd pitch, which spreads a row over the
/// banks.
/// @param tile_rows, tile_columns the part of a matrix that a block turns; their product is at most transpose_tile, and
/// tile_columns * (tile_rows | 1) at most transpose_shared
/// @param down, across tiles per matrix along rows and columns; the grid is samples * down * across
template <class From, class To>
KD_KERNEL void __launch_bounds__(transpose_threads)
    transpose(std::uint32_t rows, std::uint32_t columns, std::uint32_t tile_rows, std::uint32_t tile_columns,
              std::uint32_t down, std::uint32_t across, const From* from, To* to) {
  __shared__ float tile[transpose_shared];  // [tile_columns][pitch]
  const std::uint32_t pitch = tile_rows | 1u, tiles = down * across, which = blockIdx.x % tiles;
  const std::uint32_t row0 = which / across * tile_rows, column0 = which % across * tile_columns;
  const std::uint32_t live_rows = rows - row0 < tile_rows ? rows - row0 : tile_rows;
  const std::uint32_t live_columns = columns - column0 < tile_columns ? columns - column0 : tile_columns;
  const std::uint32_t live = live_rows * live_columns;
  const std::size_t sample = std::size_t{blockIdx.x / tiles} * rows * columns;
  for (std::uint32_t e = threadIdx.x; e < live; e += transpose_threads) {
    const std::uint32_t row = e / live_columns, column = e % live_columns;
    tile[column * pitch + row] = to_float(from[sample + std::size_t{row0 + row} * columns + column0 + column]);
  }
  __syncthreads();
  for (std::uint32_t e = threadIdx.x; e < live; e += transpose_threads) {
    const std::uint32_t column = e / live_rows, row = e % live_rows;
    to[sample + std::size_t{column0 + column} * rows + row0 + row] = from_float<To>(tile[column * pitch + row]);
  }
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
