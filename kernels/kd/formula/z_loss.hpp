/// The square of the logarithm of the softmax's normaliser, which keeps logits from drifting.
/// Zoph et al.: ST-MoE, arXiv:2202.08906, eq. (5); Chowdhery et al.: PaLM, arXiv:2204.02311, section 5, weight 1e-4.
#pragma once

#include "kd/formula/logit_loss.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// (log sum exp(z))^2.
struct z_loss {
  static constexpr const char* name = "z_loss";
  static constexpr terms side = terms::hard;

  template <class Row>
  KD_FORMULA double value(const Row& r) const {
    return (r.log_sum + r.max) * (r.log_sum + r.max);
  }
  template <class Row, class Class>
  KD_FORMULA auto gradient(const Row& r, const Class& c) const {
    return 2.0f * r.log_sum_exp * c.hard;
  }
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
