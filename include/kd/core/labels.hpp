/// The rule that every list of labels keeps, and the one message about those that break it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"

namespace kd::inline KD_ABI {

/// Throws argument_error, in the name of `function`, with row and value of the first label outside [0, classes).
inline void require_labels(std::string_view function, std::span<const std::int32_t> labels, std::size_t classes) {
  constexpr std::int32_t ignore_index = -100;
  for (std::size_t row = 0; row < labels.size(); ++row)
    if (labels[row] < 0 || static_cast<std::size_t>(labels[row]) >= classes)
      reject_argument(function, text("label ", row, " must be in [0, ", classes, ")"), labels[row],
                      labels[row] == ignore_index
                          ? "that is PyTorch's ignore_index, which no loss of kd takes: leave those rows out"
                          : "labels count from 0: correct it, or use as many classes as the data has");
}

}  // namespace kd::inline KD_ABI
