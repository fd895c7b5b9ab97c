/// What every formula begins with: the namespace, and what stands before a function that host and device share.
#pragma once

// Beside the rest of kd a formula lives in its inline namespace: code compiled for two instruction sets has two names.
// Kernels alone have no host code that could be mixed up.
#if __has_include("kd/core/abi.hpp")
#include "kd/core/abi.hpp"
#define KD_FORMULA_ABI KD_ABI
#else
#define KD_FORMULA_ABI alone
#endif

/// Always inlined: a vector is never an argument of a call, and each loop contracts products and sums as one function.
#if defined(__CUDACC__)
#define KD_FORMULA __host__ __device__ __forceinline__ constexpr
#else
#define KD_FORMULA inline __attribute__((always_inline)) constexpr
#endif
