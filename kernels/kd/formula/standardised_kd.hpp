/// Knowledge distillation of standardised logits.
/// Sun, Ren, Li, Wang, Cao: Logit standardization in knowledge distillation, arXiv:2403.01427, algorithm 1.
#pragma once

#include "kd/formula/logit_loss.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// KL(p || q) where (z - mean z)/(deviation of z + 1e-7) stands for z, and the same for t: deviations over C - 1, of
/// the classes that are not masked. The shift by the mean cancels in a softmax, so each row and side has the
/// temperature T (deviation + 1e-7). A deviation of 0, as with one class, has a derivative of 0.
struct standardised_kd {
  static constexpr const char* name = "standardised_kd";
  static constexpr terms side = terms::softened;
  static constexpr bool standardises = true;
  static constexpr bool reads_logits = true;
  static constexpr auto moments =
      sums_of(moment{by::teacher, of::gap}, moment{by::student, of::student}, moment{by::teacher, of::teacher});
  static constexpr bool infinite_where_student_is_0 = true;

  template <class Row>
  KD_FORMULA auto value(const Row& r) const {
    return r.template mean<by::teacher, of::gap>() - r.log_ratio;
  }
  static constexpr std::size_t kept = 2;
  template <class Row, class Real>
  KD_FORMULA void keep(const Row& r, Real* numbers) const {
    const Real scale = r.spread.deviation + least_deviation;
    // sum (q - p) z, through which the deviation moves the loss; sum p z by the teacher's own and the gap.
    const Real slope = (r.template mean<by::student, of::student>() - r.template mean<by::teacher, of::teacher>() +
                        r.template mean<by::teacher, of::gap>()) /
                       r.inverse_T;
    numbers[0] = 1.0f / scale;
    numbers[1] =
        r.spread.deviation > 0 ? slope / ((r.spread.count - 1.0f) * r.spread.deviation * scale * scale) : fill<Real>(0);
  }
  template <class Row, class Class>
  KD_FORMULA auto gradient(const Row& r, const Class& c) const {
    using Real = decltype(c.student + 0);
    const Real off = is_masked(c.student_logit) ? fill<Real>(0) : c.student_logit - r.spread.from - r.spread.mean;
    return c.difference * r.kept.at[0] - off * r.kept.at[1] / c.unit;
  }
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
