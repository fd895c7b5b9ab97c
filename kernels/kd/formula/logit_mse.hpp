/// The mean squared difference of the logits themselves.
/// Ba, Caruana: Do deep nets really need to be deep?, arXiv:1312.6184, eq. (1), which has 1/2 for 1/C.
#pragma once

#include "kd/formula/logit_loss.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// mean over c of (z_c - t_c)^2, by all C classes. A class that both sides mask adds 0; one that a single side masks is
/// infinite.
struct logit_mse {
  static constexpr const char* name = "logit_mse";
  static constexpr terms side = terms::logits;
  static constexpr bool needs_teacher = true;
  static constexpr bool infinite_where_student_is_0 = true, infinite_where_teacher_is_0 = true;

  static constexpr std::size_t logit_sums = 1;
  template <class Class, class Real>
  KD_FORMULA void add_logits(const Class& c, Real* sums) const {
    const auto d = difference(c);
    sums[0] += d * d;
  }
  template <class Row>
  KD_FORMULA auto value(const Row& r) const {
    return r.logit_sums.at[0] / r.classes;
  }
  template <class Row, class Class>
  KD_FORMULA auto gradient(const Row& r, const Class& c) const {
    return 2.0f * difference(c) / r.classes;
  }

 private:
  template <class Class>
  KD_FORMULA static auto difference(const Class& c) {
    const auto student = is_masked(c.student_logit), teacher = is_masked(c.teacher_logit);
    return (student & teacher) ? decltype(c.student_logit + 0){} : c.student_logit - c.teacher_logit;
  }
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
