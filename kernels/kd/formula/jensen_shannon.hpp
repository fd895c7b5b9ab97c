/// The generalised Jensen-Shannon divergence.
/// Agarwal et al.: On-policy distillation of language models (GKD), arXiv:2306.13649, section 2.
#pragma once

#include "kd/formula/mixture.hpp"
#include "kd/formula/option.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q. beta = 0 and 1 mean what the formula's limit is,
/// 0 for all rows, and not a KL divergence, by which some libraries replace it.
struct jensen_shannon {
  float beta = 0.5f;

  static constexpr const char* name = "jensen_shannon";
  static constexpr terms side = terms::softened;
  static constexpr bool reads_log_gap = true;
  static constexpr void options(auto&& each) {
    each(option{"beta", &jensen_shannon::beta, 0, 1, "0.5 is usual, and symmetric; at 0 and 1 the loss is 0"});
  }

  static constexpr std::size_t probability_sums = 2;  // KL(p || m), KL(q || m)
  template <class Row, class Class, class Real>
  KD_FORMULA void add_probabilities(const Row&, const Class& c, Real* sums) const {
    const auto m = mixture_of<typename Row::math>(c, beta);
    sums[0] += c.unit * (c.teacher * m.log_teacher);
    sums[1] += c.unit * (c.student * m.log_student);
  }
  template <class Row>
  KD_FORMULA auto value(const Row& r) const {
    return beta * r.probability_sums.at[0] + (1 - beta) * r.probability_sums.at[1];
  }
  template <class Row, class Class>
  KD_FORMULA auto gradient(const Row& r, const Class& c) const {
    const auto m = mixture_of<typename Row::math>(c, beta);
    return (1 - beta) * (c.student * (m.log_student - r.probability_sums.at[1]));
  }
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
