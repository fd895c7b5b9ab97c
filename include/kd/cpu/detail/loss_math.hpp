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
};

}  // namespace kd::inline KD_ABI::cpu::detail
