/// Sums and maxima over a warp and over a block: fixed trees, so that results never depend on the order of threads.
#pragma once

#include "kd/kernel/abi.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// The sum over the 32 lanes, the same in all of them; every lane of the warp must call.
template <class T>
__device__ T warp_sum(T x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(full_warp, x, offset);
  return x;
}

/// The largest over the 32 lanes, in all of them; NaN is ignored as by fmaxf.
__device__ inline float warp_max(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(full_warp, x, offset));
  return x;
}

/// The sum over a block of Threads threads (a multiple of 32, at most 1,024), the same in all of them. `room` is shared
/// memory for Threads / 32 values; it may be used again after the next __syncthreads() of the caller.
template <unsigned Threads, class T>
__device__ T block_sum(T x, T* room) {
  static_assert(Threads % warp_size == 0 && Threads <= 1024, "kd::kernel::block_sum: whole warps, at most 32 of them");
  x = warp_sum(x);
  if constexpr (Threads == warp_size) return x;
  const unsigned lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  if (lane == 0) room[warp] = x;
  __syncthreads();
  x = lane < Threads / warp_size ? room[lane] : T{};
  return warp_sum(x);
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
