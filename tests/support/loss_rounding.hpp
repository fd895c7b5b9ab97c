/// How far a float32 engine may be from the definition of a loss.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>
#include <vector>

#include "support/compare.hpp"
#include "support/loss_definitions.hpp"

#include "kd/formula/losses.hpp"

namespace kd_test {

/// `value`: of each term's value, relative where it is above 1. `gradient`: absolute, of a row.
struct loss_rounding {
  double value = 0, gradient = 0;
};

/// What a row's rounding depends on.
struct rounded_row {
  double T = 1;
  double gap = 0;     // the largest |log q - log p| but for their normalisers
  double logit = 0;   // the largest |z| or |t|
  double spread = 0;  // the deviation of z
  double classes = 1;
};

inline rounded_row rounded_row_of(double T, double teacher_T, const std::vector<double>& z,
                                  const std::vector<double>& t) {
  rounded_row r;
  r.T = T;
  r.classes = static_cast<double>(z.size());
  double z_max = -INFINITY, t_max = -INFINITY, mean = 0, squares = 0, n = 0;
  for (std::size_t c = 0; c < z.size(); ++c) {
    z_max = std::max(z_max, z[c]);
    t_max = std::max(t_max, t[c]);
  }
  std::vector<double> gaps, logits;  // of the classes that are not masked
  for (std::size_t c = 0; c < z.size(); ++c) {
    if (std::isfinite(z[c]) && std::isfinite(t[c])) gaps.push_back((t[c] - t_max) / teacher_T - (z[c] - z_max) / T);
    for (const double x : {z[c], t[c]})
      if (std::isfinite(x)) logits.push_back(x);
    if (std::isfinite(z[c])) mean += z[c], n += 1;
  }
  r.gap = largest_magnitude(gaps);
  r.logit = largest_magnitude(logits);
  for (const double x : z)
    if (std::isfinite(x)) squares += (x - mean / n) * (x - mean / n);
  r.spread = n > 1 ? std::sqrt(squares / (n - 1)) : 0;
  return r;
}

/// By how much more a term rounds than forward KL, whose probabilities are right to 1e-7 of the largest one, and so its
/// value and gradient.
template <class Term>
loss_rounding rounding_beside_kl(const Term& term, const rounded_row& r) {
  namespace f = kd::formula;
  const auto is = [&]<class... Other>(f::list<Other...>) { return (std::is_same_v<Term, Other> || ...); };
  // log q - log p is multiplied by a probability, and rounds by 1e-7 of itself.
  if (is(f::list<f::reverse_kl, f::jeffreys>{})) return {2, 1 + r.gap / 4};
  if (is(f::list<f::alpha_divergence>{})) return {8 + r.gap, 4 + r.gap};
  if (is(f::list<f::jensen_shannon, f::skewed_kl, f::skewed_reverse_kl>{})) return {4, 4};
  if (is(f::list<f::dkd>{})) return {10, 10};
  // Probabilities differ from their mean by 1/T of themselves, and so does what their rounding is relative to.
  if (is(f::list<f::dist>{})) return {4 + r.T, 8 + r.T * r.T};
  if (is(f::list<f::logit_mse>{})) return {1, 2 * r.logit / r.classes};
  if (is(f::list<f::standardised_kd>{})) return {4, 4 + 4 / (r.spread + 1e-7)};
  if (is(f::list<f::smoothed_cross_entropy>{})) return {1 + r.logit / 8, 1};
  if (is(f::list<f::z_loss>{})) return {4, 2 * (r.logit + std::log(r.classes))};
  (void)term;
  return {1, 1};
}

template <class Loss>
loss_rounding rounding_of(const Loss& loss, const std::vector<double>& z, const std::vector<double>& t) {
  const double T = Loss::softens ? loss.temperature : 1, teacher_T = Loss::softens ? loss.teacher_temperature : 1;
  const rounded_row row = rounded_row_of(T, teacher_T, student_seen(loss, z), teacher_seen(loss, t));
  // The hyperbolic tangent is within 2e-7, which the logits multiply.
  const double of_caps = Loss::caps ? 1 + row.logit / 4 : 1;
  loss_rounding all;
  Loss::each([&](auto index) {
    constexpr std::size_t i = decltype(index)::value;
    const bool softened = Loss::template term_at<i>::side == kd::formula::terms::softened;
    const loss_rounding one = rounding_beside_kl(loss.template term<i>(), row);
    // An exponential is within 1e-7, which T^2 multiplies.
    const double of_value = of_caps * (softened ? 1e-6 + 3e-7 * loss.value_scale() : 1e-6);
    const double of_gradient = of_caps * (softened ? 1e-6 * loss.gradient_scale() : 1e-6);
    all.value = std::max(all.value, of_value * one.value);
    all.gradient += loss.template weight<i>() * of_gradient * one.gradient;
  });
  return all;
}

/// The sum of a loss's weights, by which its total is larger than its values; at least 1.
template <class Loss>
double loss_weights(const Loss& loss) {
  double sum = 0;
  Loss::each([&](auto index) { sum += loss.template weight<decltype(index)::value>(); });
  return std::max(1.0, sum);
}

}  // namespace kd_test
