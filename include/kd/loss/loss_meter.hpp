/// The sums of a loss over many steps, kept in the device's memory and read on request: once an epoch.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "kd/core/abi.hpp"
#include "kd/formula/loss_sums.hpp"
#include "kd/loss/loss_terms.hpp"

namespace kd::inline KD_ABI {

/// Sums over rows, and the first fault.
struct loss_meter : formula::loss_sums {
  /// Adds one step, unless there was a fault before.
  void add(const loss_result& result) {
    if (fault_kind != loss_fault_kind::none) return;
    if (!result.finite()) {
      fault_kind = result.fault.kind;
      fault_row = result.fault.row;
      fault_class = result.fault.class_index;
      fault_step = steps;
      return;
    }
    const auto n = static_cast<double>(result.terms.rows);
    total += n * result.terms.total;
    for (std::size_t i = 0; i < result.terms.size; ++i) values[i] += n * result.terms.list[i].value;
    correct += n * result.terms.accuracy;
    agrees += n * result.terms.teacher_agreement;
    rows += result.terms.rows;
    ++steps;
  }
  loss_fault fault() const {
    return {fault_kind, static_cast<std::size_t>(fault_row), static_cast<std::size_t>(fault_class)};
  }
  /// The means over all rows so far; zeros before the first. `names` are the loss's value_names.
  loss_terms means(std::span<const std::string_view> names) const {
    const double n = rows == 0 ? 1 : static_cast<double>(rows);
    loss_terms all = {.total = total / n,
                      .accuracy = correct / n,
                      .teacher_agreement = agrees / n,
                      .rows = static_cast<std::size_t>(rows)};
    for (; all.size < names.size(); ++all.size) all.list[all.size] = {names[all.size], values[all.size] / n};
    return all;
  }
};

}  // namespace kd::inline KD_ABI
