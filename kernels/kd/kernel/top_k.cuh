/// How many rows have their label first, and among the first k, of the sorted logits.
///
///   better = classes c with logits[c] > logits[label], or equal and c < label (of equals the first class counts)
///   counts[0] += better == 0;  counts[1] += better < k
/// A logit that is NaN is better than none; a row whose label's logit is NaN, or whose label is no class, counts
/// nowhere.
/// Layout: logits [row][class]. Bytes per row: 4 per class and 4. Launch: 256 threads, a warp per row, the grid over
/// groups of 8 rows; 64 bytes of shared memory. Sums are integers, so that atomics give the same result in any order.
/// Limits: rows below 2^34. Checked in tests/cuda/top_k_test.cpp.
#pragma once

#include "kd/kernel/block.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// @param counts [2], added to
template <unsigned Threads>
KD_KERNEL void __launch_bounds__(Threads)
    count_top_k(std::size_t rows, std::size_t classes, const float* logits, const std::int32_t* labels, std::size_t k,
                unsigned long long* counts) {
  constexpr unsigned warps = Threads / warp_size;
  __shared__ unsigned first[warps], among[warps];  // by the row of each warp: 0 or 1
  const unsigned lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  const std::size_t row = std::size_t{blockIdx.x} * warps + warp;
  bool valid = row < rows;
  unsigned long long better = 0;
  if (valid) {
    const float* const x = logits + row * classes;
    const std::int32_t label = labels[row];
    valid = label >= 0 && static_cast<std::size_t>(label) < classes;
    if (valid) {
      const auto at = static_cast<std::size_t>(label);
      const float reference = x[at];
      valid = !(reference != reference);
      for (std::size_t c = lane; c < classes; c += warp_size)
        better += x[c] > reference || (x[c] == reference && c < at);
    }
  }
  better = warp_sum(better);
  if (lane == 0) {
    first[warp] = valid && better == 0;
    among[warp] = valid && better < k;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned sums[2] = {0, 0};
#pragma unroll
    for (unsigned i = 0; i < warps; ++i) {
      sums[0] += first[i];
      sums[1] += among[i];
    }
    if (sums[0] > 0) atomicAdd(&counts[0], static_cast<unsigned long long>(sums[0]));
    if (sums[1] > 0) atomicAdd(&counts[1], static_cast<unsigned long long>(sums[1]));
  }
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
