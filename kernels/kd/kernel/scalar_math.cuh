/// The arithmetic of formulas (kd/formula/) in a thread: floats, each sum with a product one explicit fmaf, so that a
/// formula gives the same bits on any GPU and on a host.
#pragma once

#include "kd/kernel/abi.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

struct scalar_math {
  /// a * b + c
  __device__ static float fma(float a, float b, float c) { return fmaf(a, b, c); }
  /// a * b + c * d, of which c * d is rounded before
  __device__ static float fma2(float a, float b, float c, float d) { return fmaf(a, b, c * d); }
  __device__ static float sqrt(float x) { return sqrtf(x); }
  /// -1, 0 or 1; a NaN stays one.
  __device__ static float sign(float x) { return x > 0 ? 1.0f : x < 0 ? -1.0f : x; }
};

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
