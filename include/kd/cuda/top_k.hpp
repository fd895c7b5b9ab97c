/// Counting what a network gets right, on the GPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kd/cuda/launch.hpp"
#include "kd/kernel/top_k.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// Adds to counts[0] the rows whose label has the largest logit, and to counts[1] those whose label is among the k
/// largest; of equal logits the first class counts, as in kd::train::evaluate_logits. A row whose label's logit is NaN,
/// or whose label is no class, counts nowhere; a NaN elsewhere, which evaluate_logits counts as wrong, is no hindrance.
/// @param logits [rows][classes]
/// @param labels [rows]
/// @param counts [2] in device memory, set to 0 before the first batch
/// @throws argument_error when k is 0
KD_HIDDEN inline void count_top_k(const stream& s, std::size_t rows, std::size_t classes, const float* logits,
                                  const std::int32_t* labels, std::size_t k, std::uint64_t* counts) {
  if (k == 0) reject_argument("kd::cuda::count_top_k", "k must be at least 1", k, "5 is usual");
  constexpr unsigned threads = 256;
  static_assert(sizeof(unsigned long long) == sizeof(std::uint64_t));
  launch(s, "count_top_k", blocks_for(rows, threads / kernel::warp_size), threads, 0, kernel::count_top_k<threads>,
         rows, classes, logits, labels, k, reinterpret_cast<unsigned long long*>(counts));
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
