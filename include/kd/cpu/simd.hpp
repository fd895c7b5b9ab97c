/// Vectors of sixteen floats, one per lane of a block, made of native vectors of 16, 8, 4 or 1 floats.
///
/// The native width is a template argument everywhere, so that the code of every width runs on every machine (the
/// compiler splits what the machine lacks); width 1 is plain scalar code, the portable twin.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "kd/core/abi.hpp"

/// In front of a loop: unrolled n times by the host compiler. nvcc passes the pragma on to it, and need not warn that
/// it does not know it itself.
#define KD_PRAGMA(words) _Pragma(#words)
#if defined(__CUDACC__)
#define KD_UNROLL(n) \
  KD_PRAGMA(nv_diagnostic push) KD_PRAGMA(nv_diag_suppress 1675) KD_PRAGMA(GCC unroll n) KD_PRAGMA(nv_diagnostic pop)
#else
#define KD_UNROLL(n) KD_PRAGMA(GCC unroll n)
#endif

namespace kd::inline KD_ABI::cpu {

/// Floats in the widest native vector of this translation unit's instruction set.
#if defined(__AVX512F__)
inline constexpr std::size_t native_width = 16;
#elif defined(__AVX2__)
inline constexpr std::size_t native_width = 8;
#else
inline constexpr std::size_t native_width = 4;
#endif

namespace detail {

/// A native vector of Width floats, the integers its comparisons yield, and a byte for each of them.
template <std::size_t Width>
struct native;

#define KD_NATIVE_VECTOR(width)                                                        \
  template <>                                                                          \
  struct native<width> {                                                               \
    typedef float type __attribute__((vector_size(width * sizeof(float))));            \
    typedef std::int32_t integers __attribute__((vector_size(width * sizeof(float)))); \
    typedef std::uint8_t bytes __attribute__((vector_size(width)));                    \
  };
KD_NATIVE_VECTOR(16)
KD_NATIVE_VECTOR(8)
KD_NATIVE_VECTOR(4)
#undef KD_NATIVE_VECTOR

template <>
struct native<1> {
  using type = float;
  using integers = std::int32_t;
  using bytes = std::uint8_t;
};

template <std::size_t Width>
using vector_of = typename native<Width>::type;

// Vectors are passed by reference: returning one wider than the instruction set's is an ABI change that compilers warn
// of.
template <std::size_t Width>
inline void load(vector_of<Width>& vector, const float* from) {
  __builtin_memcpy(&vector, from, sizeof(vector));
}
template <std::size_t Width>
inline void store(float* to, const vector_of<Width>& vector) {
  __builtin_memcpy(to, &vector, sizeof(vector));
}

/// Width bytes as integers, and the lowest bytes of integers.
template <std::size_t Width>
inline void load_bytes(typename native<Width>::integers& integers, const std::uint8_t* from) {
  if constexpr (Width == 1) {
    integers = *from;
    return;
  } else {
    // __builtin_convertvector from bytes to integers is scalar code in g++ 12, 35 cycles for 16 of them.
#if defined(__GNUC__) && !defined(__clang__) && defined(__AVX512F__)
    if constexpr (Width == 16) {
      char narrow __attribute__((vector_size(16)));
      __builtin_memcpy(&narrow, from, sizeof narrow);
      integers = (typename native<Width>::integers)__builtin_ia32_pmovzxbd512_mask(
          narrow, typename native<Width>::integers{}, 0xFFFF);
      return;
    }
#endif
#if defined(__GNUC__) && !defined(__clang__) && defined(__AVX2__)
    if constexpr (Width == 8) {
      long long eight;
      __builtin_memcpy(&eight, from, sizeof eight);
      const long long narrow __attribute__((vector_size(16))) = {eight, 0};
      typedef char char_vector __attribute__((vector_size(16)));
      integers = (typename native<Width>::integers)__builtin_ia32_pmovzxbd256((char_vector)narrow);
      return;
    }
#endif
    typename native<Width>::bytes bytes;
    __builtin_memcpy(&bytes, from, sizeof(bytes));
    integers = __builtin_convertvector(bytes, typename native<Width>::integers);
  }
}
template <std::size_t Width>
inline void store_bytes(std::uint8_t* to, const typename native<Width>::integers& integers) {
  typename native<Width>::bytes bytes;
  if constexpr (Width == 1)
    bytes = static_cast<std::uint8_t>(integers);
  else
    bytes = __builtin_convertvector(integers, typename native<Width>::bytes);
  __builtin_memcpy(to, &bytes, sizeof(bytes));
}

/// first, first + 1, ...
template <std::size_t Width>
inline void count_up(typename native<Width>::integers& integers, std::int32_t first) {
  if constexpr (Width == 1)
    integers = first;
  else
    for (std::size_t i = 0; i < Width; ++i) integers[i] = first + static_cast<std::int32_t>(i);
}

/// Exchanges the off-diagonal Step x Step blocks of rows `low` and `high` = low + Step.
template <std::size_t Width, std::size_t Step>
inline void transpose_step(vector_of<Width>& low, vector_of<Width>& high) {
  const vector_of<Width> a = low, b = high;
  constexpr auto l = [](std::size_t j) { return j & Step ? Width + j - Step : j; };
  constexpr auto h = [](std::size_t j) { return j & Step ? Width + j : j + Step; };
  // Written out: nvcc 13 loses the dots of a pack expansion among the arguments of a builtin.
  if constexpr (Width == 4) {
    low = __builtin_shufflevector(a, b, l(0), l(1), l(2), l(3));
    high = __builtin_shufflevector(a, b, h(0), h(1), h(2), h(3));
  } else if constexpr (Width == 8) {
    low = __builtin_shufflevector(a, b, l(0), l(1), l(2), l(3), l(4), l(5), l(6), l(7));
    high = __builtin_shufflevector(a, b, h(0), h(1), h(2), h(3), h(4), h(5), h(6), h(7));
  } else {
    static_assert(Width == 16, "kd::cpu: vectors have 4, 8 or 16 floats");
    low = __builtin_shufflevector(a, b, l(0), l(1), l(2), l(3), l(4), l(5), l(6), l(7), l(8), l(9), l(10), l(11), l(12),
                                  l(13), l(14), l(15));
    high = __builtin_shufflevector(a, b, h(0), h(1), h(2), h(3), h(4), h(5), h(6), h(7), h(8), h(9), h(10), h(11),
                                   h(12), h(13), h(14), h(15));
  }
}

template <std::size_t Width, std::size_t Step>
inline void transpose_steps(vector_of<Width> (&rows)[Width]) {
  KD_UNROLL(16)
  for (std::size_t i = 0; i < Width; ++i)
    if (!(i & Step)) transpose_step<Width, Step>(rows[i], rows[i + Step]);
  if constexpr (Step * 2 < Width) transpose_steps<Width, Step * 2>(rows);
}

/// to[j * to_row + i] = from[i * from_row + j] for i, j in [0, 16); rows of `from` past `rows` count as zero.
template <std::size_t Width>
inline void transpose_16x16(const float* from, std::size_t from_row, std::size_t rows, float* to, std::size_t to_row) {
  if constexpr (Width == 1) {
    for (std::size_t j = 0; j < 16; ++j)
      for (std::size_t i = 0; i < 16; ++i) to[j * to_row + i] = i < rows ? from[i * from_row + j] : 0.0f;
  } else {
    for (std::size_t i = 0; i < 16; i += Width)
      for (std::size_t j = 0; j < 16; j += Width) {
        vector_of<Width> tile[Width] = {};
        KD_UNROLL(16)
        for (std::size_t r = 0; r < Width; ++r)
          if (i + r < rows) load<Width>(tile[r], from + (i + r) * from_row + j);
        transpose_steps<Width, 1>(tile);
        KD_UNROLL(16)
        for (std::size_t r = 0; r < Width; ++r) store<Width>(to + (j + r) * to_row + i, tile[r]);
      }
  }
}

}  // namespace detail
}  // namespace kd::inline KD_ABI::cpu
