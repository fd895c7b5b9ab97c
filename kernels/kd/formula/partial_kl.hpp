/// The forward KL divergence of the part of a teacher's distribution that was kept, without renormalising it.
/// Anshumann et al.: Sparse logit sampling, arXiv:2503.16870, section 3.
#pragma once

#include "kd/formula/logit_loss.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// sum p (log p - log q), where p = exp(t): the teacher's logits are log-probabilities as they are, of which a masked
/// class has none, and T' is 1. They may sum to any P: with p^ = p/P the sum is P (KL(p^ || q) + log P), and its
/// gradient P (q - p^). It may be negative where P < 1. Where P is 1 it is forward KL.
struct partial_kl {
  static constexpr const char* name = "partial_kl";
  static constexpr terms side = terms::softened;
  static constexpr auto moments = sums_of(moment{by::teacher, of::gap});
  static constexpr bool infinite_where_student_is_0 = true;
  static constexpr bool takes_log_probabilities = true;

  template <class Row>
  KD_FORMULA auto value(const Row& r) const {
    return mass(r) * (r.template mean<by::teacher, of::gap>() - r.log_ratio + r.log_mass);
  }
  static constexpr std::size_t kept = 1;  // P
  template <class Row, class Real>
  KD_FORMULA void keep(const Row& r, Real* numbers) const {
    numbers[0] = mass(r);
  }
  template <class Row, class Class>
  KD_FORMULA auto gradient(const Row& r, const Class& c) const {
    return r.kept.at[0] * c.difference;
  }

 private:
  template <class Row>
  KD_FORMULA static auto mass(const Row& r) {
    return Row::math::exp(r.log_mass);
  }
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
