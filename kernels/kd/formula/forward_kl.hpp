/// KL(p || q), from the teacher's point of view: the loss of knowledge distillation.
/// Hinton, Vinyals, Dean: Distilling the knowledge in a neural network, arXiv:1503.02531, section 2.
#pragma once

#include "kd/formula/logit_loss.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// sum p (log p - log q). Watched: the soft cross entropy -sum p log q, which differs by the teacher's entropy alone.
struct forward_kl {
  static constexpr const char* name = "forward_kl";
  static constexpr const char* value_name = "kd";
  static constexpr terms side = terms::softened;
  static constexpr auto moments = sums_of(moment{by::teacher, of::gap}, moment{by::teacher, of::teacher});
  static constexpr bool infinite_where_student_is_0 = true;
  static constexpr const char* watched[] = {"soft_cross_entropy"};

  // In this form there is no logarithm of a probability, and both sides of each difference are near 0 where p is large.
  template <class Row>
  KD_FORMULA auto value(const Row& r) const {
    return r.template mean<by::teacher, of::gap>() - r.log_ratio;
  }
  template <class Row, class Real>
  KD_FORMULA void watch(const Row& r, Real* values) const {
    values[0] = r.value + (r.log_teacher - r.template mean<by::teacher, of::teacher>());
  }
  template <class Row, class Class>
  KD_FORMULA auto gradient(const Row&, const Class& c) const {
    return c.difference;
  }
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
