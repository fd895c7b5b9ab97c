/// Numbers as vendor libraries hold and round them. Internal to the emulator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace simt {

/// How a product may round its factors.
enum class factors { as_they_are, tf32, bf16 };

inline float with_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
/// To nearest even, leaving out the lowest `dropped` bits; NaN stays NaN.
inline float rounded(float x, unsigned dropped) {
  if (x != x) return x;
  const std::uint32_t bits = bits_of(x), half = (1u << (dropped - 1)) - 1 + ((bits >> dropped) & 1u);
  return with_bits((bits + half) & ~((1u << dropped) - 1));
}
inline float factor(float x, factors how) {
  switch (how) {
    case factors::as_they_are:
      return x;
    case factors::tf32:
      return rounded(x, 13);
    case factors::bf16:
      return rounded(x, 16);
  }
  return x;
}

/// Elements of device memory: floats, or bfloat16.
struct numbers {
  const void* memory;
  bool bfloat16;

  float operator[](std::size_t i) const {
    if (!bfloat16) return static_cast<const float*>(memory)[i];
    return with_bits(std::uint32_t{static_cast<const std::uint16_t*>(memory)[i]} << 16);
  }
};
inline void store(void* memory, bool bfloat16, std::size_t i, float x) {
  if (!bfloat16) {
    static_cast<float*>(memory)[i] = x;
  } else {
    // Rounding leaves a NaN of low bits alone, whose upper half would be an infinity.
    const std::uint32_t bits = x != x ? bits_of(x) | 0x400000u : bits_of(rounded(x, 16));
    static_cast<std::uint16_t*>(memory)[i] = static_cast<std::uint16_t>(bits >> 16);
  }
}

/// A workspace holds anything after a call, which shows temporaries that share it.
inline void spoil(void* memory, std::size_t bytes) {
  if (bytes > 0) std::memset(memory, 0xff, bytes);
}

}  // namespace simt
