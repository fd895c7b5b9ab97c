/// Cross entropy with integer labels, from raw logits.
#pragma once

#include "kd/core/abi.hpp"
#include "kd/formula/cross_entropy.hpp"
#include "kd/formula/logit_loss.hpp"

namespace kd::inline KD_ABI {

/// -log softmax(z)_y, mean over the rows; gradient (softmax(z) - onehot(y)) / rows.
struct cross_entropy {
  static constexpr const char* name = "cross_entropy";
  static constexpr bool needs_teacher = false;
  static constexpr void options(auto&&) {}
  void validate() const {}
  /// What the engines compute.
  constexpr auto formula() const {
    return formula::logit_loss{1.0f, 1.0f, false, formula::weighted{1.0f, formula::cross_entropy{}}};
  }
};

}  // namespace kd::inline KD_ABI
