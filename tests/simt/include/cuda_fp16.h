/// Stand-in for NVIDIA's cuda_fp16.h: storage and conversions.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

/// IEEE binary16: sign, 5 bits of exponent, 10 of fraction.
struct __half {
  std::uint16_t bits;
};
using half = __half;
struct alignas(4) __half2 {
  __half x, y;
};
using half2 = __half2;

inline float __half2float(__half x) {
  const int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
  const float size = exponent == 31  ? (fraction != 0 ? NAN : INFINITY)
                     : exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                     : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
  return std::copysign(size, (x.bits & 0x8000) != 0 ? -1.0f : 1.0f);
}
/// To nearest, ties to even; every NaN becomes 0x7fff, as on a GPU.
inline __half __float2half(float x) {
  if (x != x) return {0x7fff};
  const std::uint32_t sign = std::bit_cast<std::uint32_t>(x) >> 16 & 0x8000u;
  const float size = std::fabs(x);
  std::uint32_t bits = 0x7c00;  // infinity: 65520 and above round to it
  if (size < 65520.0f) {
    // In steps of the format at this size; below 2^-14 they do not become smaller.
    int exponent = 0;
    std::frexp(size, &exponent);
    if (size < 0x1p-14f) exponent = -13;
    const float steps = std::nearbyint(std::ldexp(size, 11 - exponent));
    // Adding lets 2048 steps carry into the exponent.
    bits = (static_cast<std::uint32_t>(exponent + 13) << 10) + static_cast<std::uint32_t>(steps);
  }
  return {static_cast<std::uint16_t>(sign | bits)};
}
inline __half __float2half_rn(float x) { return __float2half(x); }
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half(x), __float2half(y)}; }
