/// exp and log of vectors of floats, to within 2.1 units in the last place, for any vector width.
///
/// Both are the textbook scheme: reduce to a small interval by a power of two, evaluate a minimax polynomial there.
/// The width is a template argument; width 1 is the portable twin that tests compare the others with.
#pragma once

#include <cstddef>
#include <cstring>

#include "kd/core/abi.hpp"
#include "kd/cpu/simd.hpp"

namespace kd::inline KD_ABI::cpu {

/// exp(x / T) as 2^(log2e_over_t x): dividing by T costs nothing, and one multiplication-addition reduces the argument.
struct exponential_scale {
  float log2e_over_t;
  float underflow;  // from this x up the exponential is a normal float; below it counts as 0
  float zero;       // here exp_clamped is exactly 0

  constexpr explicit exponential_scale(float temperature)
      : log2e_over_t(static_cast<float>(1.4426950408889634 / temperature)),
        underflow(-126.0f / log2e_over_t * (1 - 0x1p-20f)),
        zero(-127.0f / log2e_over_t) {}

  /// 1/T as the exponentials see it, after rounding.
  constexpr double inverse_temperature() const {
    // The sum with 0: where g++ 12 computes this for two temperatures in one vector, it else leaves out the rounding to
    // float that log2e_over_t stands for.
    return (log2e_over_t + 0.0f) * 0.6931471805599453;
  }
};

/// The same with a temperature for each of Width numbers.
template <std::size_t Width>
struct exponential_scales {
  vector_of<Width> log2e_over_t, underflow, zero;

  explicit exponential_scales(const vector_of<Width>& temperature)
      : log2e_over_t(1.44269504f / temperature),
        underflow(-126.0f / log2e_over_t * (1 - 0x1p-20f)),
        zero(-127.0f / log2e_over_t) {}
};

/// 2^(log2e_over_t x) for x in [scale.underflow, 0] and scale.zero: exactly 1 at 0, exactly 0 at scale.zero, NaN stays
/// NaN. Within 1.7e-7 relative, 2.1 ulp, where the compiler contracts to FMA; where not (none in hardware, or -O1), the
/// rounded product adds up to 2^-24 |log2e_over_t x| relative.
template <std::size_t Width, class Scale>
[[gnu::always_inline]] inline vector_of<Width> exp_clamped(const vector_of<Width>& x, const Scale& scale) {
  using vector = vector_of<Width>;
  using integers = integers_of<Width>;
  // Adding 1.5 * 2^23 rounds to an integer n in the low bits; 127 more makes these bits the exponent field of 2^n,
  // which is 0, and so the result, at n = -127.
  constexpr float rounder = 0x1.8p23f + 127.0f;
  const vector shifted = x * scale.log2e_over_t + rounder;
  const vector n = shifted - rounder;
  const vector f = x * scale.log2e_over_t - n;  // [-0.5, 0.5]
  // Minimax for the relative error, 9.4e-8, with the first coefficient fixed to 1. Degree 6 would bring 2e-8 and cost
  // 5% of the fused loss, which runs at the limit of the multipliers.
  vector p = f * 0x1.5be19ep-10f + 0x1.3ce97ap-7f;
  p = p * f + 0x1.c6b6cep-5f;
  p = p * f + 0x1.ebf9cp-3f;
  p = p * f + 0x1.62e42ap-1f;
  p = p * f + 1.0f;
  integers bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits <<= 23;
  vector power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}

/// The same for any x <= 0, minus infinity included: exactly 0 below scale.underflow.
template <std::size_t Width, class Scale>
[[gnu::always_inline]] inline vector_of<Width> exp_nonpositive(const vector_of<Width>& x, const Scale& scale) {
  return exp_clamped<Width>(x < scale.underflow ? scale.zero + vector_of<Width>{} : x, scale);
}

/// log(x) for positive normal x; log(1) is exactly 0. Other x (0, negative, infinity) are outside its domain; NaN stays
/// NaN.
template <std::size_t Width>
[[gnu::always_inline]] inline vector_of<Width> log_positive(const vector_of<Width>& x) {
  using vector = vector_of<Width>;
  using integers = integers_of<Width>;
  integers bits;
  std::memcpy(&bits, &x, sizeof bits);
  // x = 2^e m with m in [sqrt(1/2), sqrt(2)).
  const integers from_root = bits - 0x3f3504f3;
  const integers e = from_root >> 23;
  const integers m_bits = (from_root & 0x7fffff) + 0x3f3504f3;
  vector m;
  std::memcpy(&m, &m_bits, sizeof m);
  const vector f = m - 1.0f;
  const vector n = __builtin_convertvector(e, vector);
  // Cephes logf: log(1 + f) = f - f^2/2 + f^3 P(f) on this interval.
  vector p = f * 7.0376836292e-2f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  const vector square = f * f;
  vector rest = f * square * p + n * 0x1.7f7d1cp-20f - 0.5f * square;
  const vector result = (f + rest) + n * 0x1.62e4p-1f;
  return x != x ? x : result;
}

}  // namespace kd::inline KD_ABI::cpu
