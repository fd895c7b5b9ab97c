/// Decoupled knowledge distillation.
/// Zhao, Cui, Song, Qiu, Liang: Decoupled knowledge distillation, arXiv:2203.08679, eq. (7).
#pragma once

#include "kd/formula/logit_loss.hpp"
#include "kd/formula/option.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// target_weight KL over {the label, all others} + others_weight KL over the other classes, p^ against q^, each
/// normalised without the label. Both weights 1 are not forward KL: there the second has a factor 1 - p_y.
///
/// With two classes the second KL is exactly 0, as p^ = q^ = 1; with one class, or where both sides mask all classes
/// but the label, both are. No p^ exists where the teacher alone masks all others: that row is a fault.
struct dkd {
  float target_weight = 1, others_weight = 8;  // alpha and beta in the paper

  static constexpr const char* name = "dkd";
  static constexpr terms side = terms::softened;
  static constexpr bool needs_label = true, label_apart = true;
  static constexpr auto moments = sums_of(moment{by::teacher, of::gap});
  static constexpr bool infinite_where_student_is_0 = true;
  static constexpr void options(auto&& each) {
    each(option{"target_weight", &dkd::target_weight, 0, 1e4, "alpha; the paper's is 1"});
    each(option{"others_weight", &dkd::others_weight, 0, 1e4, "beta; the paper's is 8 on CIFAR-100"});
  }

  // The label's probability is the logistic function of its logit less the logarithm of the others' sum: a difference
  // of large numbers from 1 is nowhere taken.
  template <class Row>
  KD_FORMULA auto value(const Row& r) const {
    using Real = decltype(r.log_ratio + 0);
    using math = typename Row::math;
    const Real a = teacher_logit(r), b = student_logit(r);
    const Real p = logistic<math>(a), others = logistic<math>(-a);
    const Real target = (p == 0 ? fill<Real>(0) : p * (softplus<math>(-b) - softplus<math>(-a))) +
                        (others == 0 ? fill<Real>(0) : others * (softplus<math>(b) - softplus<math>(a)));
    const Real sum = target_weight * target + others_weight * (r.template mean<by::teacher, of::gap>() - r.log_ratio);
    return r.student + r.teacher == 0 ? fill<Real>(0) : sum;
  }
  static constexpr std::size_t kept = 1;  // q_y - p_y, of the tails where both are near 1
  template <class Row, class Real>
  KD_FORMULA void keep(const Row& r, Real* numbers) const {
    using math = typename Row::math;
    const Real a = teacher_logit(r), b = student_logit(r);
    const Real sign = (a > 0 ? fill<Real>(-1) : fill<Real>(1));
    const Real d = sign * (logistic<math>(sign * b) - logistic<math>(sign * a));
    numbers[0] = r.student + r.teacher == 0 ? fill<Real>(0) : d;
  }
  template <class Row, class Class>
  KD_FORMULA auto gradient(const Row& r, const Class& c) const {
    return others_weight * c.difference - target_weight * r.kept.at[0] * c.student;
  }
  template <class Row>
  KD_FORMULA auto gradient_of_label(const Row& r) const {
    return target_weight * r.kept.at[0];
  }

 private:
  template <class Row>
  KD_FORMULA static auto teacher_logit(const Row& r) {
    return r.label_teacher - r.log_teacher;
  }
  template <class Row>
  KD_FORMULA static auto student_logit(const Row& r) {
    return r.label_student - (r.log_teacher - r.log_ratio);
  }
  template <class Math, class Real>
  KD_FORMULA static Real logistic(const Real& x) {
    const Real e = Math::exp(-Math::abs(x));
    return (x < 0 ? e : fill<Real>(1)) / (1.0f + e);
  }
  /// log(1 + e^x).
  template <class Math, class Real>
  KD_FORMULA static Real softplus(const Real& x) {
    return (x > 0 ? x : fill<Real>(0)) + Math::log1p(Math::exp(-Math::abs(x)));
  }
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
