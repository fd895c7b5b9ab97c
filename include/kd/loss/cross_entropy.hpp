/// Cross entropy with integer labels, from raw logits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
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

/// Throws argument_error naming the row and the value of the first label outside [0, classes).
inline void require_labels(const char* loss, std::size_t rows, std::size_t classes, const std::int32_t* labels) {
  for (std::size_t row = 0; row < rows; ++row)
    if (labels[row] < 0 || static_cast<std::size_t>(labels[row]) >= classes)
      reject_argument(loss, text("the label of row ", row, " must lie in [0,", classes, ")"), labels[row],
                      "check the data set's class count");
}

}  // namespace kd::inline KD_ABI
