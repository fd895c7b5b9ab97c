/// Sums on the GPU, the same bits in every run and on every GPU.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>

#include "kd/cuda/buffer.hpp"
#include "kd/cuda/elementwise.hpp"
#include "kd/kernel/reduce.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

namespace detail {

/// Elements for each block: sixteen for a thread, and more where that would make more than 1,024 blocks.
inline std::size_t part_of_sum(std::size_t n) {
  const std::size_t least = 4096, even = (n / 1024 + 1 + 3) / 4 * 4;
  return std::max(least, even);
}

/// Rows for each block: 128, and more where that would make more than 512 parts.
constexpr std::size_t part_of_rows(std::size_t rows) { return std::max<std::size_t>(128, (rows + 511) / 512); }

template <class T, unsigned Width>
KD_HIDDEN void column_sums_by(const stream& s, std::size_t rows, std::size_t part, std::size_t columns, const T* x,
                              float* out) {
  const std::size_t accesses = columns / Width;
  // At most a warp along the columns: what is left of the block shares the rows.
  const auto lanes = static_cast<unsigned>(std::bit_ceil(std::min<std::size_t>(accesses, kernel::warp_size)));
  launch(s, "column_sums", dim3(blocks_for(accesses, lanes), blocks_for(rows, part)), kernel::reduce_threads, 0,
         kernel::column_sums<T, Width>, rows, columns, lanes, part, x, out);
}

template <class T>
KD_HIDDEN void column_sums_once(const stream& s, std::size_t rows, std::size_t part, std::size_t columns, const T* x,
                                float* out) {
  constexpr unsigned width = kernel::pack_width<T>;
  const bool wide = columns % width == 0 && aligned_to(16, x);
  (wide ? column_sums_by<T, width> : column_sums_by<T, 1>)(s, rows, part, columns, x, out);
}

}  // namespace detail

/// Doubles of scratch that sum(n) takes.
inline std::size_t sum_scratch(std::size_t n) { return n == 0 ? 0 : (n - 1) / detail::part_of_sum(n) + 1; }

/// out[0] = sum of the n floats, in double; 0 where n is 0.
/// @param scratch sum_scratch(n) doubles
KD_HIDDEN inline void sum(const stream& s, std::size_t n, const float* x, double* out, double* scratch) {
  if (n == 0) return fill_zero(s, out, 1);
  const std::size_t part = detail::part_of_sum(n), parts = sum_scratch(n);
  launch(s, "sum", blocks_for(parts, 1), kernel::reduce_threads, 0, kernel::sum<float>, n, part,
         detail::aligned_to(16, x), x, parts == 1 ? out : scratch);
  if (parts > 1)
    launch(s, "sum of parts", 1, kernel::reduce_threads, 0, kernel::sum<double>, parts, parts, false, scratch, out);
}

/// Floats of scratch that column_sums takes.
constexpr std::size_t column_sums_scratch(std::size_t rows, std::size_t columns) {
  const std::size_t parts = rows == 0 ? 0 : (rows - 1) / detail::part_of_rows(rows) + 1;
  return parts <= 1 ? 0 : parts * columns;
}

/// out[c] = sum over the rows of x[row][c], in float; 0 where there are no rows. The gradient of a bias is this over
/// the pixels of a batch.
/// @param x [rows][columns]; T is float or kernel::bfloat16
/// @param scratch column_sums_scratch(rows, columns) floats
template <class T>
KD_HIDDEN void column_sums(const stream& s, std::size_t rows, std::size_t columns, const T* x, float* out,
                           float* scratch) {
  if (columns == 0) return;
  if (rows == 0) return fill_zero(s, out, columns);
  const std::size_t part = detail::part_of_rows(rows), parts = (rows - 1) / part + 1;
  detail::column_sums_once(s, rows, part, columns, x, parts == 1 ? out : scratch);
  if (parts > 1) detail::column_sums_once(s, parts, parts, columns, scratch, out);
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
