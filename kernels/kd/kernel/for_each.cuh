/// A function called once for every index: elementwise layers of a user's own, without writing a kernel.
///
///   function(i) for i in [0, n), in any order and at the same time
/// Launch: 256 threads, one per index while the grid allows it; no shared memory. Neighbouring threads have
/// neighbouring indices: accesses at i lie side by side. Limits: the function must not depend on what another index
/// writes. Checked in tests/cuda/for_each_test.cpp.
#pragma once

#include "kd/kernel/elementwise.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// @param function passed by value; has __host__ __device__ void operator()(std::size_t) const
template <class Function, class Visibility>
__global__ void __launch_bounds__(elementwise_threads) for_each(std::size_t n, const Function function) {
  const std::size_t step = std::size_t{gridDim.x} * elementwise_threads;
  for (std::size_t i = thread_in_grid(); i < n; i += step) function(i);
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
