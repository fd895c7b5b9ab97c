/// Vectors of sixteen floats, one per lane of a block, made of native vectors of 16, 8, 4 or 1 floats.
///
/// The native width is a template argument everywhere, so that the code of every width runs on every machine (the
/// compiler splits what the machine lacks); width 1 is plain scalar code, the portable twin.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

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

/// Floats in a native vector of this translation unit's instruction set.
inline constexpr std::size_t native_width = KD_NATIVE_WIDTH;
/// Whether the instruction set multiplies and adds in one step, rounding once; whether the compiler then contracts
/// a * b + c is its own choice (g++ does from -O2 on).
inline constexpr bool has_fma = KD_FMA;

namespace detail {

/// What vector_of, integers_of and bytes_of name.
template <std::size_t Width>
struct vectors {
  static_assert(Width == 1 || Width == 4 || Width == 8 || Width == 16, "kd::cpu: vectors have 1, 4, 8 or 16 floats");
  typedef float floats __attribute__((vector_size(Width * sizeof(float))));
  typedef std::int32_t integers __attribute__((vector_size(Width * sizeof(float))));
  typedef std::uint8_t bytes __attribute__((vector_size(Width)));
};

}  // namespace detail

/// A vector of Width floats (1, 4, 8 or 16), the integers that its comparisons yield, and a byte for each of them.
template <std::size_t Width>
using vector_of = typename detail::vectors<Width>::floats;
template <std::size_t Width>
using integers_of = typename detail::vectors<Width>::integers;
template <std::size_t Width>
using bytes_of = typename detail::vectors<Width>::bytes;

namespace detail {

/// The native vectors of this instruction set.
using floats = vector_of<native_width>;
using ints = integers_of<native_width>;
using bytes = bytes_of<native_width>;

// Vectors of any width are passed by reference: returning one wider than the instruction set's is an ABI change that
// compilers warn of. What returns a vector is for widths up to native_width.

/// Copies sizeof(Vector) bytes from memory of any alignment; one load.
template <class Vector>
inline void load(Vector& v, const void* from) {
  std::memcpy(&v, from, sizeof v);
}
template <std::size_t Width>
inline vector_of<Width> load(const float* from) {
  vector_of<Width> v;
  load(v, from);
  return v;
}
/// Copies sizeof(Vector) bytes to memory of any alignment; one store.
template <class Vector>
inline void store(void* to, const Vector& v) {
  std::memcpy(to, &v, sizeof v);
}

/// The same number in every lane. The sum with 0 keeps infinity and NaN; only the sign of -0 is lost.
template <std::size_t Width>
inline vector_of<Width> splat(float x) {
  return x + vector_of<Width>{};
}

/// The larger of each pair; `b` where either is NaN, as maxps has it.
template <class Vector>
inline Vector larger(const Vector& a, const Vector& b) {
  return a > b ? a : b;
}

/// Width bytes as integers, and the lowest bytes of integers.
template <std::size_t Width>
inline void load_bytes(integers_of<Width>& integers, const std::uint8_t* from) {
  // __builtin_convertvector from bytes to integers is scalar code in g++ 12, 35 cycles for 16 of them.
#if defined(__GNUC__) && !defined(__clang__) && defined(__AVX512F__)
  if constexpr (Width == 16) {
    char narrow __attribute__((vector_size(16)));
    __builtin_memcpy(&narrow, from, sizeof narrow);
    integers = (integers_of<Width>)__builtin_ia32_pmovzxbd512_mask(narrow, integers_of<Width>{}, 0xFFFF);
    return;
  }
#endif
#if defined(__GNUC__) && !defined(__clang__) && defined(__AVX2__)
  if constexpr (Width == 8) {
    long long eight;
    __builtin_memcpy(&eight, from, sizeof eight);
    const long long narrow __attribute__((vector_size(16))) = {eight, 0};
    typedef char char_vector __attribute__((vector_size(16)));
    integers = (integers_of<Width>)__builtin_ia32_pmovzxbd256((char_vector)narrow);
    return;
  }
#endif
  bytes_of<Width> bytes;
  load(bytes, from);
  integers = __builtin_convertvector(bytes, integers_of<Width>);
}
template <std::size_t Width>
inline void store_bytes(std::uint8_t* to, const integers_of<Width>& integers) {
  const bytes_of<Width> bytes = __builtin_convertvector(integers, bytes_of<Width>);
  store(to, bytes);
}

/// Stores sixteen words as bytes.
inline void store_narrowed(std::uint8_t* to, const std::int32_t (&words)[16]) {
#if KD_NATIVE_WIDTH == 16
  ints wide;
  load(wide, words);
  store(to, __builtin_convertvector(wide, bytes));
#else
  // Not unrolled: g++ 12 vectorises the loop, but not sixteen statements.
  KD_UNROLL(1)
  for (std::size_t l = 0; l < 16; ++l) to[l] = static_cast<std::uint8_t>(words[l]);
#endif
}

/// first, first + 1, ...
template <std::size_t Width>
inline void count_up(integers_of<Width>& integers, std::int32_t first) {
  for (std::size_t i = 0; i < Width; ++i) integers[i] = first + static_cast<std::int32_t>(i);
}

/// Elements Offset, Offset + 1, ... of v: half as many as v has.
template <std::size_t Width, std::size_t Offset, class Vector>
inline auto half_of(const Vector& v) {
  constexpr std::size_t o = Offset;
  // Written out: nvcc 13 loses the dots of a pack expansion among the arguments of a builtin.
  if constexpr (Width == 4) {
    return __builtin_shufflevector(v, v, o, o + 1);
  } else if constexpr (Width == 8) {
    return __builtin_shufflevector(v, v, o, o + 1, o + 2, o + 3);
  } else {
    static_assert(Width == 16, "kd::cpu: vectors have 4, 8 or 16 floats");
    return __builtin_shufflevector(v, v, o, o + 1, o + 2, o + 3, o + 4, o + 5, o + 6, o + 7);
  }
}

/// Folds a vector of Width numbers to one by halving, always in the same order.
template <std::size_t Width, class Vector, class Fold>
inline auto fold_lanes(const Vector& v, const Fold& fold) {
  if constexpr (Width == 1) {
    return v[0];
  } else if constexpr (Width == 2) {
    return fold(v[0], v[1]);
  } else {
    return fold_lanes<Width / 2>(fold(half_of<Width, 0>(v), half_of<Width, Width / 2>(v)), fold);
  }
}
template <std::size_t Width>
inline float sum_of_lanes(const vector_of<Width>& v) {
  return fold_lanes<Width>(v, [](const auto& a, const auto& b) { return a + b; });
}
template <std::size_t Width>
inline float largest_lane(const vector_of<Width>& v) {
  return fold_lanes<Width>(v, [](const auto& a, const auto& b) { return larger(a, b); });
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
          if (i + r < rows) load(tile[r], from + (i + r) * from_row + j);
        transpose_steps<Width, 1>(tile);
        KD_UNROLL(16)
        for (std::size_t r = 0; r < Width; ++r) store(to + (j + r) * to_row + i, tile[r]);
      }
  }
}

}  // namespace detail
}  // namespace kd::inline KD_ABI::cpu
