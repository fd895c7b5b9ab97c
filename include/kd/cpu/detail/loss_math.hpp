/// The functions that formulas of losses may call, for doubles, floats and vectors of floats.
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>

#include "kd/core/abi.hpp"
#include "kd/cpu/exponential.hpp"
#include "kd/cpu/simd.hpp"
#include "kd/formula/logit_loss.hpp"

namespace kd::inline KD_ABI::cpu::detail {

/// Math of formula::row. Vectors: log as log_positive, exp within 2.1 ulp, 0 from -87.3 down and infinite from 88.37
/// up; log1p within 4 ulp, for x > -1; NaN stays NaN.
struct loss_math {
  template <class Vector>
  static constexpr std::size_t width = sizeof(Vector) / sizeof(float);

  template <class Real>
  KD_FORMULA static Real log(const Real& x) {
    if constexpr (std::is_arithmetic_v<Real>)
      return std::log(x);
    else
      return log_positive<width<Real>>(x);
  }
  template <class Real>
  KD_FORMULA static Real log1p(const Real& x) {
    if constexpr (std::is_arithmetic_v<Real>) {
      return std::log1p(x);
    } else {
      // What 1 + x loses is made up for by what the same rounding does to (1 + x) - 1.
      const Real u = x + 1.0f, rounded = u - 1.0f;
      return rounded == 0.0f ? x : log_positive<width<Real>>(u) * (x / rounded);
    }
  }
  template <class Real>
  KD_FORMULA static Real exp(const Real& x) {
    if constexpr (std::is_arithmetic_v<Real>) {
      return std::exp(x);
    } else {
      constexpr std::size_t w = width<Real>;
      constexpr float largest = 88.37f;  // from a little further on, 2^n in exp_clamped is infinite
      const Real e = exp_nonpositive<w>(x > largest ? formula::fill<Real>(0) : x, exponential_scale(1.0f));
      return x > largest ? splat<w>(std::numeric_limits<float>::infinity()) : e;
    }
  }
  template <class Real>
  KD_FORMULA static Real abs(const Real& x) {
    return x < 0 ? -x : x;
  }
  template <class Real>
  KD_FORMULA static Real sqrt(const Real& x) {
    if constexpr (std::is_arithmetic_v<Real>) {
      return std::sqrt(x);
    } else {
      Real root = x;
      for (std::size_t i = 0; i < width<Real>; ++i) root[i] = std::sqrt(x[i]);
      return root;
    }
  }
  template <class Real>
  KD_FORMULA static Real tanh(const Real& x) {
    if constexpr (std::is_arithmetic_v<Real>) {
      return std::tanh(x);
    } else {
      // Cephes tanhf: a polynomial near 0, where 1 - 2/(exp(2|x|) + 1) would lose digits.
      const Real square = x * x, size = abs(x);
      Real p = square * -5.70498872745e-3f + 2.06390887954e-2f;
      p = p * square - 5.37397155531e-2f;
      p = p * square + 1.33314422036e-1f;
      p = p * square - 3.33332819422e-1f;
      const Real e = exp(Real(-2.0f * size)), far = 1.0f - 2.0f * e / (1.0f + e);
      return size < 0.625f ? p * square * x + x : x < 0 ? -far : far;
    }
  }
};

}  // namespace kd::inline KD_ABI::cpu::detail
