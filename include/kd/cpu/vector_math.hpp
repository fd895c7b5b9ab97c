/// The numbers and the arithmetic of formulas (kd/formula/) on the CPU.
#pragma once

#include <cstddef>

#include "kd/cpu/simd.hpp"

namespace kd::inline KD_ABI::cpu {

/// Width floats that formulas calculate with as with one number. Not trivially copyable: by value it then has the same
/// ABI at every width, which a vector wider than the instruction set's has not.
template <std::size_t Width>
struct real {
  vector_of<Width> v;

  real() = default;
  __attribute__((always_inline)) real(const vector_of<Width>& x) : v(x) {}
  __attribute__((always_inline)) real(const real& other) : v(other.v) {}
  __attribute__((always_inline)) real& operator=(const real& other) {
    v = other.v;
    return *this;
  }

#define KD_REAL_OPERATOR(sign)                                                                    \
  __attribute__((always_inline)) friend inline real operator sign(const real& a, const real& b) { \
    return vector_of<Width>(a.v sign b.v);                                                        \
  }                                                                                               \
  __attribute__((always_inline)) friend inline real operator sign(float a, const real& b) {       \
    return vector_of<Width>(a sign b.v);                                                          \
  }
  KD_REAL_OPERATOR(+)
  KD_REAL_OPERATOR(-)
  KD_REAL_OPERATOR(*)
  KD_REAL_OPERATOR(/)
#undef KD_REAL_OPERATOR
  __attribute__((always_inline)) friend inline real operator-(const real& a) { return vector_of<Width>(-a.v); }
};

/// Contraction is left to the compiler: each sum is one expression, for those that only contract within one.
template <std::size_t Width>
struct vector_math {
  using number = real<Width>;

  /// a * b + c
  template <class A, class B, class C>
  __attribute__((always_inline)) static inline number fma(const A& a, const B& b, const C& c) {
    return vector_of<Width>(plain(a) * plain(b) + plain(c));
  }
  /// a * b + c * d
  template <class A, class B, class C, class D>
  __attribute__((always_inline)) static inline number fma2(const A& a, const B& b, const C& c, const D& d) {
    return vector_of<Width>(plain(a) * plain(b) + plain(c) * plain(d));
  }
  /// Correctly rounded. By builtin: std::sqrt may set errno, and compilers do not vectorise it for that.
  __attribute__((always_inline)) static inline number sqrt(number x) {
#if defined(__has_builtin)
#if __has_builtin(__builtin_elementwise_sqrt)
#define KD_ELEMENTWISE_SQRT
#endif
#endif
#if defined(KD_ELEMENTWISE_SQRT)
    x.v = __builtin_elementwise_sqrt(x.v);
#undef KD_ELEMENTWISE_SQRT
#else
    if constexpr (Width == 1) {
      x.v[0] = __builtin_sqrtf(x.v[0]);
#if defined(__AVX512F__)
    } else if constexpr (Width == 16) {
      x.v = __builtin_ia32_sqrtps512_mask(x.v, x.v, static_cast<short>(-1), 4);  // 4: round as the mode says
#endif
#if defined(__AVX__)
    } else if constexpr (Width == 8) {
      x.v = __builtin_ia32_sqrtps256(x.v);
#endif
#if defined(__SSE__)
    } else if constexpr (Width == 4) {
      x.v = __builtin_ia32_sqrtps(x.v);
#endif
    } else {
      for (std::size_t i = 0; i < Width; ++i) x.v[i] = __builtin_sqrtf(x.v[i]);
    }
#endif
    return x;
  }
  /// -1, 0 or 1; a NaN stays one.
  __attribute__((always_inline)) static inline number sign(number x) {
    const vector_of<Width> zero{}, one = zero + 1.0f;
    x.v = x.v > zero ? one : x.v < zero ? -one : x.v;
    return x;
  }

 private:
  static constexpr float plain(float x) { return x; }
  __attribute__((always_inline)) static inline const vector_of<Width>& plain(const number& x) { return x.v; }
};

}  // namespace kd::inline KD_ABI::cpu
