/// Options with which tests run each loss: fractions that floats hold exactly, and the ends.
#pragma once

#include <vector>

#include "kd/formula/losses.hpp"

namespace kd_test {

template <class Term>
std::vector<Term> variants_of(const Term& usual) {
  return {usual};
}
inline std::vector<kd::formula::jensen_shannon> variants_of(const kd::formula::jensen_shannon&) {
  return {{.beta = 0.5f}, {.beta = 0.125f}, {.beta = 0.75f}, {.beta = 0}, {.beta = 1}};
}
inline std::vector<kd::formula::alpha_divergence> variants_of(const kd::formula::alpha_divergence&) {
  return {{.alpha = 0.5f}, {.alpha = 0.125f}, {.alpha = 0.75f}, {.alpha = 0}, {.alpha = 1}};
}
inline std::vector<kd::formula::skewed_kl> variants_of(const kd::formula::skewed_kl&) {
  return {{.skew = 0.125f}, {.skew = 0.5f}, {.skew = 1}};
}
inline std::vector<kd::formula::skewed_reverse_kl> variants_of(const kd::formula::skewed_reverse_kl&) {
  return {{.skew = 0.125f}, {.skew = 0.5f}, {.skew = 1}};
}
inline std::vector<kd::formula::dkd> variants_of(const kd::formula::dkd& usual) {
  return {usual, {.target_weight = 0.5f, .others_weight = 0}, {.target_weight = 0, .others_weight = 1}};
}
inline std::vector<kd::formula::smoothed_cross_entropy> variants_of(const kd::formula::smoothed_cross_entropy&) {
  return {{.label_smoothing = 0.125f}, {.label_smoothing = 0}, {.label_smoothing = 1}};
}

}  // namespace kd_test
