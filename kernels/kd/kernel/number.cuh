/// The number formats of activations in memory: float, and bfloat16 as its upper half. Arithmetic is always float.
#pragma once

#include "kd/kernel/abi.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// Storage of a bfloat16: sign, 8 bits of exponent and 7 of fraction, the upper half of a float.
struct bfloat16 {
  std::uint16_t bits;
};

__host__ __device__ inline float bits_to_float(std::uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}
__host__ __device__ inline std::uint32_t float_to_bits(float value) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}

__host__ __device__ inline float to_float(float x) { return x; }
__host__ __device__ inline float to_float(bfloat16 x) { return bits_to_float(std::uint32_t{x.bits} << 16); }

/// Rounds to nearest, ties to even; NaN stays NaN.
template <class T>
__host__ __device__ T from_float(float x);
template <>
__host__ __device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__host__ __device__ inline bfloat16 from_float<bfloat16>(float x) {
  const std::uint32_t bits = float_to_bits(x);
  if (x != x) return {static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
