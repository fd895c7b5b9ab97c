/// Cross entropy with the teacher's probabilities for labels: forward KL plus the teacher's entropy, and so of the same
/// gradient. Hinton, Vinyals, Dean, arXiv:1503.02531, section 2.
#pragma once

#include "kd/formula/logit_loss.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// -sum p log q.
struct soft_cross_entropy {
  static constexpr const char* name = "soft_cross_entropy";
  static constexpr terms side = terms::softened;
  static constexpr auto moments = sums_of(moment{by::teacher, of::gap}, moment{by::teacher, of::teacher});
  static constexpr bool infinite_where_student_is_0 = true;

  template <class Row>
  KD_FORMULA auto value(const Row& r) const {
    return (r.template mean<by::teacher, of::gap>() - r.log_ratio) +
           (r.log_teacher - r.template mean<by::teacher, of::teacher>());
  }
  template <class Row, class Class>
  KD_FORMULA auto gradient(const Row&, const Class& c) const {
    return c.difference;
  }
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
