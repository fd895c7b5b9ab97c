/// Cross entropy with integer labels.
#pragma once

#include "kd/formula/logit_loss.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// -log h_y.
struct cross_entropy {
  static constexpr const char* name = "cross_entropy";
  static constexpr terms side = terms::hard;
  static constexpr bool needs_label = true;

  template <class Row>
  KD_FORMULA double value(const Row& r) const {
    return r.log_sum + (r.max - r.label_logit);
  }
  template <class Row, class Class>
  KD_FORMULA auto gradient(const Row&, const Class& c) const {
    return c.hard;
  }
  KD_FORMULA float at_label() const { return 1; }
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
