/// The Jeffreys divergence KL(p || q) + KL(q || p): the sum of both, without a factor of 1/2.
/// Jeffreys: An invariant form for the prior probability in estimation problems, Proc. R. Soc. A 186, 1946.
#pragma once

#include "kd/formula/logit_loss.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// sum (p - q) (log p - log q).
struct jeffreys {
  static constexpr const char* name = "jeffreys";
  static constexpr terms side = terms::softened;
  static constexpr auto moments = sums_of(moment{by::teacher, of::gap}, moment{by::student, of::gap});
  static constexpr bool reads_log_gap = true;
  static constexpr bool infinite_where_student_is_0 = true, infinite_where_teacher_is_0 = true;

  template <class Row>
  KD_FORMULA auto value(const Row& r) const {
    return r.template mean<by::teacher, of::gap>() - r.template mean<by::student, of::gap>();
  }
  static constexpr std::size_t kept = 1;  // KL(q || p)
  template <class Row, class Real>
  KD_FORMULA void keep(const Row& r, Real* numbers) const {
    numbers[0] = r.log_ratio - r.template mean<by::student, of::gap>();
  }
  template <class Row, class Class>
  KD_FORMULA auto gradient(const Row& r, const Class& c) const {
    return c.difference + c.student * (c.log_gap - r.kept.at[0]);
  }
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
