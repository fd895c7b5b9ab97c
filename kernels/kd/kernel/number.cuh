/// The number formats in memory: float, bfloat16 as its upper half, and, of logits, float16. Arithmetic is always
/// float.
#pragma once

#include "kd/formula/logit_batch.hpp"
#include "kd/kernel/abi.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// Storage of a bfloat16: sign, 8 bits of exponent and 7 of fraction, the upper half of a float.
using formula::bfloat16;
/// Storage of an IEEE half: sign, 5 bits of exponent and 10 of fraction.
using formula::float16;

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
/// Exact. The fraction and exponent are shifted to a float's place, whose exponent is 112 more; infinity and NaN have
/// all bits of theirs. To be measured against the instruction that does the same.
__host__ __device__ inline float to_float(float16 x) {
  const std::uint32_t magnitude = (x.bits & 0x7fffu) << 13, sign = (x.bits & 0x8000u) << 16;
  const std::uint32_t scaled = float_to_bits(bits_to_float(magnitude) * 0x1p112f);
  return bits_to_float(sign | (magnitude < 0x0f800000u ? scaled : magnitude | 0x7f800000u));
}

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
template <>
__host__ __device__ inline float16 from_float<float16>(float x) {
  const std::uint32_t bits = float_to_bits(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  std::uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | (magnitude >> 13 & 0x3ffu);
  } else if (magnitude >= 0x477ff000u) {  // rounds to 2^16 or more
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // normal
    half = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  } else {  // the sum's last place is a half's smallest number
    half = float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u;
  }
  return {static_cast<std::uint16_t>(sign | half)};
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
