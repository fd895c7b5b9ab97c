/// Knowledge distillation: cross entropy and the KL divergence from the teacher's softened distribution.
/// Hinton, Vinyals, Dean: Distilling the knowledge in a neural network, arXiv:1503.02531, section 2.
#pragma once

#include <array>
#include <cmath>
#include <type_traits>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/type_list.hpp"
#include "kd/loss/cross_entropy.hpp"
#include "kd/loss/loss_terms.hpp"

namespace kd::inline KD_ABI {

/// ce_weight * CE(z, y) + kd_weight * T^2 * KL(softmax(t/T) || softmax(z/T)), mean over the rows (not over
/// rows * classes), for student logits z, teacher logits t, labels y. T^2 is part of the term, so that its gradient,
/// T (softmax(z/T) - softmax(t/T)), keeps its size as T grows.
///
/// Minus infinity is a masked class: probability 0, and 0 * infinity counts as 0. The weights scale the terms and never
/// switch the formula: with a weight of 0 the term is still computed, reported and checked.
struct distillation {
  float temperature = 2.0f;  ///< tested from 0.05 to 100; any in [min_temperature, max_temperature] is accepted
  float kd_weight = 0.25f;
  float ce_weight = 0.75f;

  static constexpr const char* name = "distillation";
  static constexpr bool needs_teacher = true;
  /// Beyond these logits divided by T, or the factor T^2, would leave the range of float for ordinary logits.
  static constexpr float min_temperature = 1e-4f, max_temperature = 1e4f;

  /// Throws argument_error for a temperature outside [min_temperature, max_temperature] or a weight that is negative or
  /// not finite.
  void validate() const {
    if (!(temperature >= min_temperature && temperature <= max_temperature))
      reject_argument(name, text("temperature must be a number in [", min_temperature, ",", max_temperature, "]"),
                      temperature, "common values are 1 to 10");
    if (!(kd_weight >= 0 && std::isfinite(kd_weight)))
      reject_argument(name, "kd_weight must be finite and not negative", kd_weight, "0 turns the term off");
    if (!(ce_weight >= 0 && std::isfinite(ce_weight)))
      reject_argument(name, "ce_weight must be finite and not negative", ce_weight, "0 turns the term off");
  }
};

constexpr std::array<float, 3> loss_numbers(const distillation& loss) {
  return {loss.temperature, loss.kd_weight, loss.ce_weight};
}

/// The loss with the options that loss_numbers gave.
template <class Loss>
constexpr Loss loss_of(const float* numbers) {
  if constexpr (std::is_same_v<Loss, distillation>) {
    return {.temperature = numbers[0], .kd_weight = numbers[1], .ce_weight = numbers[2]};
  } else if constexpr (std::is_same_v<Loss, cross_entropy>) {
    return {};
  } else {
    static_assert(no_branch_for<Loss>, "kd: the loss must be cross_entropy or distillation: no device has another");
  }
}

}  // namespace kd::inline KD_ABI
