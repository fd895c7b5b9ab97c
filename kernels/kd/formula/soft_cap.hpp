/// Logits that are scaled and softly capped before a loss looks at them, as some language models hand them out.
/// Gemma Team: Gemma 2, arXiv:2408.00118, section 2, whose final logits have a cap of 30.
#pragma once

#include "kd/formula/logit_loss.hpp"
#include "kd/formula/option.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// c tanh(s z / c) stands for the logit z, s z where the cap c is 0. A logit that is not finite is only scaled: a mask
/// stays one, and a fault too.
struct soft_cap {
  float scale = 1, cap = 0;

  static constexpr void options(auto&& each) {
    each(option{"scale", &soft_cap::scale, 1e-6f, 1e6f, "1 is none"});
    each(option{"cap", &soft_cap::cap, 0, 1e30f, "0 is none, 30 is Gemma 2's"});
  }
  template <class Math, class Real>
  KD_FORMULA Real operator()(const Real& z) const {
    const Real scaled = z * scale;
    if (cap <= 0) return scaled;
    const Real capped = cap * Math::tanh(scaled / cap);
    return z - z == 0 ? capped : scaled;
  }
  /// d operator() / dz: s (1 - tanh^2), by an exponential that keeps its digits where tanh is near 1.
  template <class Math, class Real>
  KD_FORMULA Real slope(const Real& z) const {
    if (cap <= 0) return fill<Real>(scale);
    const Real e = Math::exp(-2.0f * Math::abs(z * (scale / cap)));
    return 4.0f * scale * e / ((1.0f + e) * (1.0f + e));
  }
};

/// A logit_loss of logits that are capped.
template <class Loss>
struct capped_loss : Loss {
  static constexpr bool caps = true;
  soft_cap student_cap, teacher_cap;

  constexpr capped_loss(const Loss& loss, const soft_cap& of_student, const soft_cap& of_teacher)
      : Loss(loss), student_cap(of_student), teacher_cap(of_teacher) {}
};

/// A logit as the terms of a loss see it, and how fast it moves with the one in memory.
template <class Math, class Loss, class Real>
KD_FORMULA Real student_logit(const Loss& loss, const Real& z) {
  if constexpr (Loss::caps)
    return loss.student_cap.template operator()<Math>(z);
  else
    return z;
}
template <class Math, class Loss, class Real>
KD_FORMULA Real teacher_logit(const Loss& loss, const Real& t) {
  if constexpr (Loss::caps)
    return loss.teacher_cap.template operator()<Math>(t);
  else
    return t;
}
template <class Math, class Loss, class Real>
KD_FORMULA Real student_slope(const Loss& loss, const Real& z) {
  if constexpr (Loss::caps)
    return loss.student_cap.template slope<Math>(z);
  else
    return fill<Real>(1);
}

}  // namespace kd::formula::inline KD_FORMULA_ABI
