/// A teacher of whom the likeliest classes were kept, as the rows of logits that every loss takes.
///
///   out[c] = values[i] where c is indices[i], else minus infinity, or, where the rest is spread,
///            log((1 - sum exp(values)) / (classes - k))
/// A row whose indices are no classes or stand twice, or whose probabilities sum to more than 1 where the rest is
/// spread, becomes NaN, so that a loss names it. Layout: [row][k] and [row][class]. Bytes per row: 4 per class, and k
/// indices and values. Launch: 256 threads, a block per row; 3 KB of shared memory. Limits: rows below 2^31, k up to
/// 256. Checked in tests/cuda/top_k_teacher_test.cpp.
#pragma once

#include "kd/formula/top_k_rows.hpp"
#include "kd/kernel/block.cuh"
#include "kd/kernel/loss_batch.cuh"
#include "kd/kernel/number.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

template <unsigned Threads, class Value, class Index>
KD_KERNEL void __launch_bounds__(Threads)
    expand_top_k(formula::top_k_rows<Value, Index> from, formula::row_array<float> to) {
  static_assert(Threads == formula::top_k_rows<Value, Index>::most,
                "kd::kernel::expand_top_k: a thread per kept class");
  __shared__ unsigned kept[Threads];
  __shared__ double sums[Threads / warp_size];
  __shared__ unsigned faults[Threads / warp_size];
  const auto row_of = [](const auto& array, std::size_t width) {
    return array.data + std::size_t{blockIdx.x} * (array.row_stride == 0 ? width : array.row_stride);
  };
  const unsigned i = threadIdx.x, classes = static_cast<unsigned>(from.classes);
  const bool is_kept = i < from.k, spread = from.rest == formula::top_k_rest::spread;
  const Index index = is_kept ? row_of(from.indices, from.k)[i] : Index{};
  const float value = is_kept ? to_float(row_of(from.values, from.k)[i]) : -float_infinity;
  bool at_fault = is_kept && (index < 0 || static_cast<std::uint64_t>(index) >= from.classes);
  const unsigned mine = is_kept && !at_fault ? static_cast<unsigned>(index) : no_class;
  kept[i] = mine;
  __syncthreads();
  for (unsigned j = 0; j < i; ++j) at_fault = at_fault || (mine != no_class && kept[j] == mine);
  const double sum = block_sum<Threads>(is_kept ? exp(double{value}) : 0.0, sums);
  const bool bad =
      block_sum<Threads>(at_fault ? 1u : 0u, faults) > 0 || (spread && sum > formula::most_kept_probability);
  float rest = -float_infinity;
  if (spread && from.k < from.classes) {
    const double each = (1 - sum) / static_cast<double>(from.classes - from.k);
    if (each > 0) rest = static_cast<float>(log(each));
  }
  if (bad) rest = bits_to_float(0x7fc00000u);
  float* const out = row_of(to, from.classes);
  for (unsigned c = i; c < classes; c += Threads) out[c] = rest;
  __syncthreads();
  if (is_kept && !bad) out[mine] = value;
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
