/// The rule that every list of labels keeps, and the one message about those that break it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"

namespace kd::inline KD_ABI {

/// Throws argument_error, in the name of `function`, unless the label is in [0, classes).
inline void require_label(std::string_view function, std::size_t row, std::int64_t label, std::size_t classes) {
  constexpr std::int64_t ignore_index = -100;
  if (label < 0 || static_cast<std::uint64_t>(label) >= classes)
    reject_argument(function, text("label ", row, " must be in [0, ", classes, ")"), label,
                    label == ignore_index
                        ? "that is PyTorch's ignore_index, which data sets do not take: leave those rows out"
                        : "labels count from 0: correct it, or use as many classes as the data has");
}
/// The same for the first label that breaks the rule.
inline void require_labels(std::string_view function, std::span<const std::int32_t> labels, std::size_t classes) {
  for (std::size_t row = 0; row < labels.size(); ++row) require_label(function, row, labels[row], classes);
}

}  // namespace kd::inline KD_ABI
