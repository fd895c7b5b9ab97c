/// Rows of a table and labels of the samples of a batch, on the GPU.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "kd/cuda/elementwise.hpp"
#include "kd/kernel/rows.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

namespace detail {

template <unsigned Width>
KD_HIDDEN void gather_rows_by(const stream& s, const float* table, std::size_t width, const std::uint32_t* indices,
                              std::size_t count, float* out) {
  constexpr unsigned threads = kernel::gather_rows_threads;
  const std::size_t accesses = width / Width;
  const auto lanes = static_cast<unsigned>(std::bit_ceil(std::min<std::size_t>(accesses, threads)));
  // Four accesses per thread, so that few long rows still occupy the GPU.
  const unsigned parts = std::min(blocks_for(accesses, std::size_t{4} * lanes), 65535u);
  launch(s, "gather_rows", dim3(blocks_for(count, threads / lanes), parts), threads, 0, kernel::gather_rows<Width>,
         table, width, indices, count, lanes, out);
}

}  // namespace detail

/// out[i][:] = table[indices[i]][:].
/// @param table [sample][width]
/// @param out [count][width], not in the table
KD_HIDDEN inline void gather_rows(const stream& s, const float* table, std::size_t width, const std::uint32_t* indices,
                                  std::size_t count, float* out) {
  if (count == 0 || width == 0) return;
  const bool wide = width % 4 == 0 && detail::aligned_to(16, table, out);
  (wide ? detail::gather_rows_by<4> : detail::gather_rows_by<1>)(s, table, width, indices, count, out);
}

/// out[i] = labels[indices[i]].
KD_HIDDEN inline void gather_labels(const stream& s, const std::int32_t* labels, const std::uint32_t* indices,
                                    std::size_t count, std::int32_t* out) {
  launch(s, "gather_labels", blocks_for(count, kernel::elementwise_threads), kernel::elementwise_threads, 0,
         kernel::gather_labels<std::int32_t>, labels, indices, count, out);
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
