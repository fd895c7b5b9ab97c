/// Rows and labels of the samples of a batch.
///
///   out[i][:] = table[indices[i]][:]    table [sample][width], out [count][width], floats
///   out[i] = labels[indices[i]]
/// Bytes: 8 per float, 4 per row; 12 per label. Launch of gather_rows: 256 threads as rows x lanes (a power of two that
/// fits the row), the grid over groups of rows and, in y, over the parts of long rows; Width is 4 where the row's width
/// and the addresses allow 16-byte accesses, else 1. gather_labels: a thread per label. No shared memory.
/// Limits: indices are not checked. Checked in tests/cuda/rows_test.cpp.
#pragma once

#include "kd/kernel/elementwise.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

inline constexpr unsigned gather_rows_threads = 256;

/// @param lanes threads for each row, a power of two up to 256
template <unsigned Width>
KD_KERNEL void __launch_bounds__(gather_rows_threads)
    gather_rows(const float* table, std::size_t width, const std::uint32_t* indices, std::size_t count, unsigned lanes,
                float* out) {
  const unsigned lane = threadIdx.x % lanes, rows = gather_rows_threads / lanes;
  const std::size_t i = std::size_t{blockIdx.x} * rows + threadIdx.x / lanes;
  if (i >= count) return;
  const float* const from = table + indices[i] * width;
  float* const to = out + i * width;
  const std::size_t step = std::size_t{gridDim.y} * lanes * Width;
  for (std::size_t c = (std::size_t{blockIdx.y} * lanes + lane) * Width; c < width; c += step)
    *reinterpret_cast<pack<float, Width>*>(to + c) = *reinterpret_cast<const pack<float, Width>*>(from + c);
}

template <class Label>
KD_KERNEL void __launch_bounds__(elementwise_threads)
    gather_labels(const Label* labels, const std::uint32_t* indices, std::size_t count, Label* out) {
  const std::size_t i = thread_in_grid();
  if (i < count) out[i] = labels[indices[i]];
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
