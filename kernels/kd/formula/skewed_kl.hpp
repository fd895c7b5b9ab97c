/// KL divergences from a mixture that holds a share of their own distribution, and so are finite for any masks.
/// Ko, Kim, Chen, Yun: DistiLLM: Towards streamlined distillation for large language models, arXiv:2402.03898, eq. (4).
#pragma once

#include "kd/formula/mixture.hpp"
#include "kd/formula/option.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// KL(p || m), m = skew p + (1 - skew) q. At skew = 1 it is 0; skew = 0 would be forward_kl.
struct skewed_kl {
  float skew = 0.1f;

  static constexpr const char* name = "skewed_kl";
  static constexpr terms side = terms::softened;
  static constexpr bool reads_log_gap = true;
  static constexpr void options(auto&& each) { each(option{"skew", &skewed_kl::skew, 0.01, 1, "0.1 is the paper's"}); }

  static constexpr std::size_t probability_sums = 2;  // the value, sum p (q - p)/m
  template <class Row, class Class, class Real>
  KD_FORMULA void add_probabilities(const Row&, const Class& c, Real* sums) const {
    const auto m = mixture_of<typename Row::math>(c, skew);
    sums[0] += c.unit * (c.teacher * m.log_teacher);
    sums[1] += c.unit * (c.teacher * m.tilt);
  }
  template <class Row>
  KD_FORMULA auto value(const Row& r) const {
    return r.probability_sums.at[0];
  }
  // -(1 - skew) q (p/m - sum q p/m) with p/m = 1 - (1 - skew) tilt and q/m = 1 + skew tilt: 0 where tilt is.
  template <class Row, class Class>
  KD_FORMULA auto gradient(const Row& r, const Class& c) const {
    const auto tilt = mixture_of<typename Row::math>(c, skew).tilt;
    return (1 - skew) * (c.difference - skew * (c.teacher * tilt - c.student * r.probability_sums.at[1]));
  }
};

/// KL(q || m), m = skew q + (1 - skew) p. At skew = 1 it is 0; skew = 0 would be reverse_kl.
struct skewed_reverse_kl {
  float skew = 0.1f;

  static constexpr const char* name = "skewed_reverse_kl";
  static constexpr terms side = terms::softened;
  static constexpr bool reads_log_gap = true;
  static constexpr void options(auto&& each) {
    each(option{"skew", &skewed_reverse_kl::skew, 0.01, 1, "0.1 is the paper's"});
  }

  static constexpr std::size_t probability_sums = 2;  // the value, sum q (q - p)/m
  template <class Row, class Class, class Real>
  KD_FORMULA void add_probabilities(const Row&, const Class& c, Real* sums) const {
    const auto m = mixture_of<typename Row::math>(c, 1 - skew);
    sums[0] += c.unit * (c.student * m.log_student);
    sums[1] += c.unit * (c.student * m.tilt);
  }
  template <class Row>
  KD_FORMULA auto value(const Row& r) const {
    return r.probability_sums.at[0];
  }
  // q (x - sum q x) with x = log(q/m) - skew q/m and q/m = 1 + (1 - skew) tilt.
  template <class Row, class Class>
  KD_FORMULA auto gradient(const Row& r, const Class& c) const {
    const auto m = mixture_of<typename Row::math>(c, 1 - skew);
    return c.student *
           ((m.log_student - r.probability_sums.at[0]) - skew * (1 - skew) * (m.tilt - r.probability_sums.at[1]));
  }
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
