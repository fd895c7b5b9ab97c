/// The sums of a loss over many steps, kept in the device's memory and read when somebody asks: once an epoch.
#pragma once

#include <cstdint>

#include "kd/core/abi.hpp"
#include "kd/loss/loss_terms.hpp"

namespace kd::inline KD_ABI {

/// Sums over rows, and the first fault. kernel/loss_sums.cuh has the same layout.
struct loss_meter {
  double total = 0, cross_entropy = 0, kd = 0, soft_cross_entropy = 0;  // as loss_terms, summed over rows
  double correct = 0, agrees = 0;                                       // counts of rows
  std::uint64_t rows = 0, steps = 0;                                    // without fault
  std::uint32_t fault_kind = 0, reserved = 0;  // loss_fault_kind; sticks: later steps add nothing
  std::uint64_t fault_row = 0, fault_class = 0, fault_step = 0;

  /// Adds one step, unless there was a fault before.
  void add(const loss_result& result) {
    if (fault_kind != 0) return;
    if (!result.finite()) {
      fault_kind = static_cast<std::uint32_t>(result.fault.kind);
      fault_row = result.fault.row;
      fault_class = result.fault.class_index;
      fault_step = steps;
      return;
    }
    const auto n = static_cast<double>(result.terms.rows);
    total += n * result.terms.total;
    cross_entropy += n * result.terms.cross_entropy;
    kd += n * result.terms.kd;
    soft_cross_entropy += n * result.terms.soft_cross_entropy;
    correct += n * result.terms.accuracy;
    agrees += n * result.terms.teacher_agreement;
    rows += result.terms.rows;
    ++steps;
  }
  loss_fault fault() const {
    return {static_cast<loss_fault_kind>(fault_kind), static_cast<std::size_t>(fault_row),
            static_cast<std::size_t>(fault_class)};
  }
  /// The means over all rows so far; zeros before the first.
  loss_terms means() const {
    const double n = rows == 0 ? 1 : static_cast<double>(rows);
    return {.total = total / n,
            .cross_entropy = cross_entropy / n,
            .kd = kd / n,
            .soft_cross_entropy = soft_cross_entropy / n,
            .accuracy = correct / n,
            .teacher_agreement = agrees / n,
            .rows = static_cast<std::size_t>(rows)};
  }
};
static_assert(sizeof(loss_meter) == 96);

}  // namespace kd::inline KD_ABI
