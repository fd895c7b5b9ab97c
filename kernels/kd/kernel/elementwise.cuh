/// The loop of the elementwise kernels: one thread for each whole vector, then one for each element that is left.
///
/// Launch: 256 threads, a thread per item of vectors + (n - vectors * Width); no shared memory. `vectors` is at most
/// n / Width, and 0 where an address does not allow wide accesses. One 16-byte access per operand and thread keeps
/// 32 KiB per operand in flight on a full multiprocessor, more than the latency of device memory asks for.
#pragma once

#include "kd/kernel/pack.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

inline constexpr unsigned elementwise_threads = 256;

/// The number of this thread over the whole one-dimensional grid.
__device__ inline std::size_t thread_in_grid() { return std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; }

/// a / b and a % b; the 64-bit division, about four times the instructions, only where a needs it.
__device__ inline std::size_t quotient(std::size_t a, std::uint32_t b) {
  return a >> 32 == 0 ? static_cast<std::uint32_t>(a) / b : a / b;
}
__device__ inline std::uint32_t remainder(std::size_t a, std::uint32_t b) {
  return a >> 32 == 0 ? static_cast<std::uint32_t>(a) % b : static_cast<std::uint32_t>(a % b);
}

/// operation.template run<W>(i) works on the elements [i, i + W): W is Width, with i a multiple of it, or 1.
template <unsigned Width, class Operation>
__device__ void elementwise(std::size_t n, std::size_t vectors, const Operation& operation) {
  const std::size_t item = thread_in_grid();
  if (item < vectors) {
    operation.template run<Width>(item * Width);
  } else {
    const std::size_t i = vectors * Width + (item - vectors);
    if (i < n) operation.template run<1>(i);
  }
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
