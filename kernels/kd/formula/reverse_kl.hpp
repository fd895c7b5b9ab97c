/// KL(q || p), which seeks modes where forward KL covers them.
/// Gu, Dong, Wei, Huang: MiniLLM: Knowledge distillation of large language models, arXiv:2306.08543, section 2.1.
#pragma once

#include "kd/formula/logit_loss.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// sum q (log q - log p).
struct reverse_kl {
  static constexpr const char* name = "reverse_kl";
  static constexpr terms side = terms::softened;
  static constexpr auto moments = sums_of(moment{by::student, of::gap});
  static constexpr bool reads_log_gap = true;
  static constexpr bool infinite_where_teacher_is_0 = true;

  template <class Row>
  KD_FORMULA auto value(const Row& r) const {
    return r.log_ratio - r.template mean<by::student, of::gap>();
  }
  template <class Row, class Class>
  KD_FORMULA auto gradient(const Row& r, const Class& c) const {
    return c.student * (c.log_gap - r.value);
  }
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
