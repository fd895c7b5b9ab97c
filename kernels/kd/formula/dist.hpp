/// DIST's relation between classes. Huang, You, Wang, Qian, Xu: Knowledge distillation from a stronger teacher,
/// arXiv:2205.10536, section 4. Its relation between samples correlates columns of the batch: it crosses rows, has no
/// place among these formulas, and is a kernel of its own: kd/cpu/dist_columns.hpp.
#pragma once

#include "kd/formula/logit_loss.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// 1 - the Pearson correlation of q and p over the classes, masked ones included with their probability 0. Where one
/// of the two is the same for all classes, as with one class, it has no correlation: that counts as 0, the value is 1,
/// and the gradient 0.
struct dist {
  static constexpr const char* name = "dist";
  static constexpr terms side = terms::softened;

  // Both means are 1/C, and the part of the gradient that goes through the softmax's sum vanishes.
  static constexpr std::size_t probability_sums = 4;  // of the classes that have a probability, and how many they are
  template <class Row, class Class, class Real>
  KD_FORMULA void add_probabilities(const Row& r, const Class& c, Real* sums) const {
    const auto none = (c.student == 0) & (c.teacher == 0);
    const Real nothing = 0.0f * c.unit;  // NaN where all classes are masked
    const Real x = none ? nothing : c.student * c.unit - 1.0f / r.classes;
    const Real y = none ? nothing : c.teacher * c.unit - 1.0f / r.classes;
    sums[0] += x * y;
    sums[1] += x * x;
    sums[2] += y * y;
    sums[3] += none ? fill<Real>(0) : fill<Real>(1);
  }
  // The root of a square is exact, and so equal rows have a correlation of exactly 1.
  template <class Row>
  KD_FORMULA auto value(const Row& r) const {
    const auto product = sum(r, 1) * sum(r, 2);
    return 1.0f - (product == 0 ? product : sum(r, 0) / Row::math::sqrt(product));
  }
  static constexpr std::size_t kept = 2;
  template <class Row, class Real>
  KD_FORMULA void keep(const Row& r, Real* numbers) const {
    const Real product = sum(r, 1) * sum(r, 2);
    numbers[0] = product == 0 ? product : (1.0f - r.value) / sum(r, 1);
    numbers[1] = product == 0 ? product : 1.0f / Row::math::sqrt(product);
  }
  template <class Row, class Class>
  KD_FORMULA auto gradient(const Row& r, const Class& c) const {
    // As a x - b y, with the difference of x and y apart: a fused product and sum would leave equal rows a rest.
    const auto x = c.student * c.unit - 1.0f / r.classes;
    return c.student * ((r.kept.at[0] - r.kept.at[1]) * x + r.kept.at[1] * (c.difference * c.unit));
  }

 private:
  /// With the classes without a probability, whose every product is 1/C^2.
  template <class Row>
  KD_FORMULA static auto sum(const Row& r, std::size_t i) {
    return r.probability_sums.at[i] + (r.classes - r.probability_sums.at[3]) / (r.classes * r.classes);
  }
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
