/// Knowledge distillation: cross entropy with the labels, and a divergence from the teacher's softened distribution.
/// Hinton, Vinyals, Dean: Distilling the knowledge in a neural network, arXiv:1503.02531, section 2.
#pragma once

#include <type_traits>

#include "kd/core/abi.hpp"
#include "kd/core/options.hpp"
#include "kd/formula/cross_entropy.hpp"
#include "kd/formula/forward_kl.hpp"
#include "kd/formula/logit_loss.hpp"
#include "kd/formula/option.hpp"
#include "kd/loss/teacher_temperature.hpp"

namespace kd::inline KD_ABI {

/// ce_weight * CE(z, y) + kd_weight * T^2 D(softmax(t/T), softmax(z/T)), mean over the rows (not over rows * classes),
/// for student logits z, teacher logits t, labels y and a divergence of kernels/kd/formula. T^2 is part of the term, so
/// that its gradient keeps its size as T grows; times_temperature_squared = false leaves it out, as TextBrewer,
/// Liger-Kernel and TRL do.
///
/// Minus infinity is a masked class: probability 0, and 0 * infinity counts as 0. The weights scale the terms and never
/// switch the formula: with a weight of 0 the term is still computed, reported and checked.
template <class Divergence>
struct distillation_with {
  float temperature = 2.0f;  ///< tested from 0.05 to 100
  float kd_weight = 0.25f;
  float ce_weight = 0.75f;
  float teacher_temperature = 0.0f;  ///< 0: the student's
  bool times_temperature_squared = true;
  Divergence divergence = {};

  static constexpr const char* name =
      std::is_same_v<Divergence, formula::forward_kl> ? "distillation" : Divergence::name;
  static constexpr bool needs_teacher = true;
  /// Beyond these logits divided by T, or the factor T^2, would leave the range of float for ordinary logits.
  static constexpr float min_temperature = 1e-4f, max_temperature = 1e4f;

  static constexpr void options(auto&& each) {
    using mine = distillation_with;
    using formula::option;
    each(option{"temperature", &mine::temperature, min_temperature, max_temperature, "common values are 1 to 10"});
    each(option{"kd_weight", &mine::kd_weight, 0, formula::unbounded, "0 turns the term off"});
    each(option{"ce_weight", &mine::ce_weight, 0, formula::unbounded, "0 turns the term off"});
    each(option{"teacher_temperature", &mine::teacher_temperature, 0, max_temperature, "0 is the student's"}
             .added_later());
    each(option{"times_temperature_squared", &mine::times_temperature_squared, "true is Hinton's convention"}
             .added_later());
  }
  /// See each_option.
  constexpr void each_part(const auto& visit) { visit("divergence.", divergence); }
  constexpr void each_part(const auto& visit) const { visit("divergence.", divergence); }
  /// Throws argument_error for a temperature outside [min_temperature, max_temperature], a weight that is negative or
  /// not finite, and options that the divergence does not allow.
  void validate() const {
    validate_options(name, *this);
    validate_options(name, divergence);
    require_teacher_temperature<Divergence>(name, temperature, teacher_temperature);
  }
  /// What the engines compute.
  constexpr auto formula() const {
    return formula::logit_loss{temperature, teacher_temperature == 0 ? temperature : teacher_temperature,
                               times_temperature_squared, formula::weighted{kd_weight, divergence},
                               formula::weighted{ce_weight, formula::cross_entropy{}}};
  }
};

/// With the forward KL divergence: the loss of the paper.
using distillation = distillation_with<formula::forward_kl>;

}  // namespace kd::inline KD_ABI
