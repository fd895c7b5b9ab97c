/// What nvcc gives to a kernel, for a host compiler: force-included (-include) in front of a test of kernels, which
/// then run with one fiber per CUDA thread. README.md says how.
///
/// Builds: plain; KD_SIMT_ASAN (with -fsanitize=address,undefined); KD_SIMT_RACE (with -fsanitize=thread, for the test
/// file alone, linked with the hooks of race.cpp instead of the sanitizer's runtime).
#pragma once

#define KD_SIMT 1
// kd.hpp then has the CUDA device.
#define KD_CUDA 1

#define __host__
#define __device__
#define __constant__ static
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// Internal linkage: g++ gives redzones to the static variables of such functions only, not of ordinary templates.
#define __global__ __attribute__((unused)) static
#define KD_KERNEL __global__

// As thread_local, static shared variables lie together in one segment, which is poisoned before every block; static
// variables have redzones of AddressSanitizer instead. In the race build gaps between them are out of bounds.
#if defined(KD_SIMT_ASAN)
#define __shared__ static
#elif defined(KD_SIMT_RACE)
#define __shared__ __attribute__((aligned(64))) thread_local
#else
#define __shared__ thread_local
#endif

/// Inside a kernel: `name` points to the block's dynamic shared memory, exactly as long as the launch says.
#define KD_DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(::simt::dynamic_shared())

#include "vector_types.hpp"

#include "intrinsics.hpp"

#include "arithmetic.hpp"
#include "atomics.hpp"
