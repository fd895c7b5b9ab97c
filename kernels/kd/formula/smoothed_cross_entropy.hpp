/// Cross entropy with smoothed labels.
/// Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: Rethinking the Inception architecture, arXiv:1512.00567, section 7.
#pragma once

#include "kd/formula/logit_loss.hpp"
#include "kd/formula/option.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// -(1 - s) log h_y - s mean over c of log h_c, s = label_smoothing, as torch.nn.CrossEntropyLoss has it; the mean is
/// over the classes that are not masked. Where the engine sums in float, it is good to 1e-7 of the largest logit.
struct smoothed_cross_entropy {
  float label_smoothing = 0.1f;

  static constexpr const char* name = "smoothed_cross_entropy";
  static constexpr terms side = terms::hard;
  static constexpr bool needs_label = true;
  static constexpr void options(auto&& each) {
    each(option{"label_smoothing", &smoothed_cross_entropy::label_smoothing, 0, 1, "0.1 is usual"});
  }

  static constexpr std::size_t logit_sums = 2;  // logits, and how many
  template <class Class, class Real>
  KD_FORMULA void add_logits(const Class& c, Real* sums) const {
    const auto masked = is_masked(c.student_logit);
    sums[0] += masked ? fill<Real>(0) : c.student_logit;
    sums[1] += masked ? fill<Real>(0) : fill<Real>(1);
  }
  template <class Row>
  KD_FORMULA double value(const Row& r) const {
    const double s = label_smoothing;
    return r.log_sum + ((1 - s) * (r.max - r.label_logit) + s * (r.max - r.logit_sums.at[0] / r.logit_sums.at[1]));
  }
  template <class Row, class Class>
  KD_FORMULA auto gradient(const Row& r, const Class& c) const {
    using Real = decltype(c.hard + 0);
    const Real spread = label_smoothing / (r.logit_sums.at[1] * c.hard_unit);
    return c.hard - (is_masked(c.student_logit) ? fill<Real>(0) : spread);
  }
  KD_FORMULA float at_label() const { return 1 - label_smoothing; }
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
