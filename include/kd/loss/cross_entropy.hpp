/// Cross entropy with integer labels, from raw logits.
#pragma once

#include <array>

#include "kd/core/abi.hpp"
#include "kd/core/labels.hpp"
#include "kd/loss/loss_terms.hpp"

namespace kd::inline KD_ABI {

/// -log softmax(z)_y, mean over the rows; gradient (softmax(z) - onehot(y)) / rows.
struct cross_entropy {
  static constexpr const char* name = "cross_entropy";
  static constexpr bool needs_teacher = false;
  void validate() const {}
};

/// The options of a loss as numbers in a row, for step_scalars: temperature, kd_weight, ce_weight.
constexpr std::array<float, 3> loss_numbers(const cross_entropy&) { return {1, 0, 1}; }

}  // namespace kd::inline KD_ABI
