/// Logits as they lie in memory, float, bfloat16 or IEEE float16, to vectors of floats and back. Conversions to 16 bits
/// round to nearest, ties to even; NaN stays NaN.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "kd/core/abi.hpp"
#include "kd/cpu/simd.hpp"
#include "kd/formula/logit_batch.hpp"

namespace kd::inline KD_ABI::cpu::detail {

using formula::bfloat16;
using formula::float16;

/// Width words of 32 and of 16 bits.
template <std::size_t Width>
struct words_of {
  typedef std::uint32_t words __attribute__((vector_size(Width * 4)));
  typedef std::uint16_t halves __attribute__((vector_size(Width * 2)));
  typedef short shorts __attribute__((vector_size(Width * 2)));
};

/// As many floats as words.
template <class Words>
using floats_of = std::conditional_t<std::is_integral_v<Words>, float, vector_of<sizeof(Words) / 4>>;

/// The bits of floats from those of 16-bit numbers in the low half of each word, and back. Words are vectors of any
/// width, or one.
template <class Format, class Words>
[[gnu::always_inline]] inline Words widened(const Words& bits) {
  if constexpr (std::is_same_v<Format, bfloat16>) {
    return bits << 16;
  } else {
    // The exponent moved into place is short of 112, which a multiplication adds, to subnormals too.
    const Words magnitude = (bits & 0x7fff) << 13;
    const auto floats = std::bit_cast<floats_of<Words>>(magnitude) * 0x1p112f;
    const Words infinite = magnitude >= Words{} + (0x7c00 << 13) ? Words{} + 0x7f800000 : Words{};
    return std::bit_cast<Words>(floats) | infinite | ((bits & 0x8000) << 16);
  }
}
template <class Format, class Words>
[[gnu::always_inline]] inline Words narrowed(const Words& bits) {
  const Words magnitude = bits & 0x7fffffff;
  const auto is_nan = magnitude > Words{} + 0x7f800000;
  if constexpr (std::is_same_v<Format, bfloat16>) {
    const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return is_nan ? (bits >> 16) | 0x40 : rounded;
  } else {
    const Words normal = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    // A sum with 1/2 rounds to the unit of subnormals, 2^-24, in its lowest bits.
    const Words subnormal = std::bit_cast<Words>(std::bit_cast<floats_of<Words>>(magnitude) + 0.5f) - 0x3f000000;
    const Words finite = magnitude < Words{} + (113u << 23) ? subnormal : normal;
    const Words beyond = is_nan ? Words{} + 0x7e00 : Words{} + 0x7c00;
    return (magnitude >= Words{} + 0x477ff000 ? beyond : finite) | ((bits >> 16) & 0x8000);
  }
}

inline float to_float(float x) { return x; }
template <class Format>
requires(sizeof(Format) == 2) inline float to_float(Format x) {
  return std::bit_cast<float>(widened<Format>(std::uint32_t{x.bits}));
}
template <class T>
inline T from_float(float x) {
  if constexpr (std::is_same_v<T, float>)
    return x;
  else
    return {static_cast<std::uint16_t>(narrowed<T>(std::bit_cast<std::uint32_t>(x)))};
}

/// Width logits from memory of any alignment, and to it.
template <std::size_t Width, class Format>
requires(sizeof(Format) == 2) [[gnu::always_inline]] inline vector_of<Width> load(const Format* from) {
  using words = typename words_of<Width>::words;
  typename words_of<Width>::halves halves;
  load(halves, from);
#if defined(__F16C__) || defined(__AVX512F__)
  using shorts = typename words_of<Width>::shorts;
  if constexpr (std::is_same_v<Format, float16> && Width == 8)
    return __builtin_ia32_vcvtph2ps256(std::bit_cast<shorts>(halves));
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<Format, float16> && Width == 16)
    return __builtin_ia32_vcvtph2ps512_mask(std::bit_cast<shorts>(halves), vector_of<Width>{}, -1, 4);
#endif
#endif
  return std::bit_cast<vector_of<Width>>(widened<Format>(__builtin_convertvector(halves, words)));
}
template <std::size_t Width, class T>
[[gnu::always_inline]] inline void store_logits(T* to, const vector_of<Width>& v) {
  if constexpr (std::is_same_v<T, float>) {
    store(to, v);
  } else {
#if defined(__F16C__) || defined(__AVX512F__)
    if constexpr (std::is_same_v<T, float16> && Width == 8) return store(to, __builtin_ia32_vcvtps2ph256(v, 0));
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<T, float16> && Width == 16)
      return store(to, __builtin_ia32_vcvtps2ph512_mask(v, 0, typename words_of<Width>::shorts{}, 0xFFFF));
#endif
#endif
    using words = typename words_of<Width>::words;
    const typename words_of<Width>::halves halves =
        __builtin_convertvector(narrowed<T>(std::bit_cast<words>(v)), typename words_of<Width>::halves);
    store(to, halves);
  }
}

/// The first count (< Width) logits, minus infinity (probability 0) in the other lanes.
template <std::size_t Width, class T>
inline vector_of<Width> load_masked(const T* from, std::size_t count) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float> && Width == 16) {
    return __builtin_ia32_loadups512_mask(from, splat<Width>(-std::numeric_limits<float>::infinity()),
                                          static_cast<short>((1 << count) - 1));
  } else
#endif
  {
    float lanes[Width];
    for (std::size_t i = 0; i < Width; ++i)
      lanes[i] = i < count ? to_float(from[i]) : -std::numeric_limits<float>::infinity();
    return load<Width>(lanes);
  }
}
/// The vector at i of `count` logits, what lies past them masked.
template <std::size_t Width, class T>
[[gnu::always_inline]] inline vector_of<Width> load_of(const T* from, std::size_t i, std::size_t count) {
  return i + Width <= count ? load<Width>(from + i) : load_masked<Width>(from + i, count > i ? count - i : 0);
}

}  // namespace kd::inline KD_ABI::cpu::detail
