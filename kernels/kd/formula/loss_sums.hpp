/// What a loss leaves behind, on the host and in a device's memory alike: sums over rows and steps, and the first
/// fault.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kd/formula/abi.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// What was found in a row that has no finite loss.
enum class loss_fault_kind : std::uint32_t {
  none,
  student_nan,
  student_infinite,    // plus infinity
  student_all_masked,  // minus infinity for every class
  teacher_nan,
  teacher_infinite,
  teacher_all_masked,
  label_masked,                  // the student gives the label probability 0: infinite cross entropy
  class_masked_in_student_only,  // the teacher gives the class a probability: infinite forward KL
  class_masked_in_teacher_only,  // the student gives the class a probability: infinite reverse KL
  overflow,                      // finite logits too far apart for float
  label_out_of_range,            // found by the CUDA device, which cannot throw; the class is the label
  row_weight,                    // likewise: negative or not finite
};

/// Values that a loss can report beside its total.
inline constexpr std::size_t most_loss_values = 8;

/// Sums over the rows of all steps so far. The first fault sticks, and nothing is added after it.
struct loss_sums {
  double total = 0;                      // what is minimised
  double values[most_loss_values] = {};  // of the loss's terms without their weights, in the loss's order
  double correct = 0, agrees = 0;        // rows whose largest student class is the label, or the teacher's
  std::uint64_t rows = 0, steps = 0;     // without fault
  loss_fault_kind fault_kind = loss_fault_kind::none;
  std::uint32_t reserved = 0;
  std::uint64_t fault_row = 0, fault_class = 0, fault_step = 0;
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
