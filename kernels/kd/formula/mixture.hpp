/// Student and teacher against a mixture of both, m = w p + (1 - w) q, for divergences from a mixture.
#pragma once

#include <type_traits>

#include "kd/formula/logit_loss.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

template <class Real>
struct mixture {
  Real log_teacher;  // log(p/m); 0 where p underflows
  Real log_student;  // log(q/m); finite where q underflows
  Real tilt;         // (q - p)/m
};

/// Of one class. The logarithm of the larger of p and q comes from the difference q - p, so that it is exactly 0 for
/// equal rows, and by a positive argument of log1p, so that it is exact where the other is nearly 0; the smaller one's
/// from there by log q - log p. At w = 0 and 1 all three are 0: of the two divergences from m one is 0, and the other's
/// weight is.
template <class Math, class Class>
KD_FORMULA auto mixture_of(const Class& c, float w) {
  using Real = std::remove_cvref_t<decltype(c.student)>;
  const Real none = 0.0f * c.difference;  // but NaN stays NaN
  if (w <= 0 || w >= 1) return mixture<Real>{none, none, none};
  const Real m = w * c.teacher + (1 - w) * c.student;
  const Real tilt = m == 0 ? none : c.difference / m;
  const auto student_is_larger = c.difference > 0;
  const Real larger = Math::log1p(student_is_larger ? w * tilt : (w - 1) * tilt);
  return mixture<Real>{c.teacher == 0      ? none
                       : student_is_larger ? larger - c.log_gap
                                           : larger,
                       student_is_larger ? larger : larger + c.log_gap, tilt};
}

}  // namespace kd::formula::inline KD_FORMULA_ABI
