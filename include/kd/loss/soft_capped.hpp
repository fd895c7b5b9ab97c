/// Any loss on logits that are scaled and softly capped first.
#pragma once

#include "kd/core/abi.hpp"
#include "kd/core/options.hpp"
#include "kd/formula/soft_cap.hpp"

namespace kd::inline KD_ABI {

using formula::soft_cap;

/// A loss whose logits are c tanh(s z / c), for a model that scales and caps what it hands out; the gradient is that by
/// z, the logits in memory:
///
///   kd::soft_capped{kd::distillation{.temperature = 2}, kd::soft_cap{.cap = 30}, kd::soft_cap{.cap = 30}}
///
/// No capped copy is written. The hyperbolic tangent is computed each time a logit is read.
template <class Loss>
struct soft_capped {
  Loss loss;
  soft_cap student = {}, teacher = {};

  static constexpr auto name = Loss::name;
  static constexpr bool needs_teacher = Loss::needs_teacher;

  /// Throws argument_error for an option of the loss or of a cap outside of its limits.
  void validate() const {
    loss.validate();
    validate_options(name, student);
    validate_options(name, teacher);
  }
  /// What the engines compute.
  constexpr auto formula() const { return formula::capped_loss{loss.formula(), student, teacher}; }
  /// The same loss with default options.
  static constexpr soft_capped defaults() {
    if constexpr (requires { Loss::defaults(); })
      return {Loss::defaults()};
    else
      return {Loss{}};
  }
  /// See each_option: "student_cap", "teacher_scale", and the loss's own.
  constexpr void each_part(const auto& visit) { parts_of(*this, visit); }
  constexpr void each_part(const auto& visit) const { parts_of(*this, visit); }

 private:
  template <class Self>
  static constexpr void parts_of(Self& self, const auto& visit) {
    visit("", self.loss);
    if constexpr (requires { self.loss.each_part(visit); }) self.loss.each_part(visit);
    visit("student_", self.student);
    visit("teacher_", self.teacher);
  }
};
template <class Loss, class... Caps>
soft_capped(Loss, Caps...) -> soft_capped<Loss>;

}  // namespace kd::inline KD_ABI
