/// The total variation distance between student and teacher.
/// Wen, Li, Du, Mou: f-divergence minimization for sequence-level knowledge distillation, arXiv:2307.15190, section 3.
#pragma once

#include "kd/formula/logit_loss.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// 1/2 sum |p - q|. Where p = q the subgradient is 0, so that equal rows have none.
struct total_variation {
  static constexpr const char* name = "total_variation";
  static constexpr terms side = terms::softened;

  static constexpr std::size_t probability_sums = 2;  // the value, 1/2 sum q sign(q - p)
  template <class Row, class Class, class Real>
  KD_FORMULA void add_probabilities(const Row&, const Class& c, Real* sums) const {
    sums[0] += 0.5f * c.unit * Row::math::abs(c.difference);
    sums[1] += c.unit * (c.student * half_sign(c.difference));
  }
  template <class Row>
  KD_FORMULA auto value(const Row& r) const {
    return r.probability_sums.at[0];
  }
  template <class Row, class Class>
  KD_FORMULA auto gradient(const Row& r, const Class& c) const {
    return c.student * (half_sign(c.difference) - r.probability_sums.at[1]);
  }

 private:
  template <class Real>
  KD_FORMULA static Real half_sign(const Real& x) {
    const Real half = fill<Real>(0.5f);
    return x > 0 ? half : x < 0 ? -half : fill<Real>(0);
  }
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
