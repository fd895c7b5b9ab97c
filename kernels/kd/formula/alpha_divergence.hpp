/// The alpha divergence in Amari's convention, as ABKD writes it (there with beta = 1 - alpha).
/// Cichocki, Amari: Families of alpha- beta- and gamma-divergences, Entropy 12, 2010, eq. (4).
/// Wang et al.: ABKD, arXiv:2505.04560, section 3.
#pragma once

#include "kd/formula/logit_loss.hpp"
#include "kd/formula/option.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// (1 - sum p^alpha q^(1-alpha)) / (alpha (1 - alpha)). Its limits are KL(p || q) at alpha = 1 and KL(q || p) at alpha
/// = 0; 1/2 gives 4 times the squared Hellinger distance.
struct alpha_divergence {
  float alpha = 0.5f;

  static constexpr const char* name = "alpha_divergence";
  static constexpr terms side = terms::softened;
  static constexpr bool reads_log_gap = true, reads_teacher_log_gap = true;
  // At the limits alone. Between them a class that one side masks adds 0 to the sum.
  static constexpr bool infinite_where_student_is_0 = true, infinite_where_teacher_is_0 = true;
  static constexpr void options(auto&& each) {
    each(option{"alpha", &alpha_divergence::alpha, 0, 1, "1 is forward KL, 0 reverse KL, 0.5 symmetric"});
  }

  // p^alpha q^(1-alpha) is p plus p ((q/p)^(1-alpha) - 1), and q plus q ((p/q)^alpha - 1): the nearer limit's form.
  static constexpr std::size_t probability_sums = 1;
  template <class Row, class Class, class Real>
  KD_FORMULA void add_probabilities(const Row&, const Class& c, Real* sums) const {
    sums[0] += c.unit * part<typename Row::math>(c);
  }
  template <class Row>
  KD_FORMULA auto value(const Row& r) const {
    return alpha < 0.5f ? r.probability_sums.at[0] / (1 - alpha) : r.probability_sums.at[0] / -alpha;
  }
  template <class Row, class Class>
  KD_FORMULA auto gradient(const Row& r, const Class& c) const {
    const auto apart = part<typename Row::math>(c) - c.student * r.probability_sums.at[0];
    return alpha < 0.5f ? apart : (c.difference - (1 - alpha) * apart) / alpha;
  }

 private:
  template <class Math, class Class>
  KD_FORMULA auto part(const Class& c) const {
    return alpha < 0.5f ? c.student * power<Math>(c.log_gap, -alpha)
                        : c.teacher * power<Math>(c.teacher_log_gap, 1 - alpha);
  }
  /// (e^(a g) - 1)/a, whose limit at a = 0 is g, without cancellation near it: Higham, Accuracy and Stability of
  /// Numerical Algorithms, section 1.14.1.
  template <class Math, class Real>
  KD_FORMULA static Real power(const Real& g, float a) {
    if (a == 0) return g;
    const Real x = a * g, e = Math::exp(x), less = e - 1.0f;
    return less == -1.0f ? less / a : less == 0 ? g : less * g / Math::log(e);
  }
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
