/// What a loss function reports: its terms apart, the hit rates, and the first value that is not finite.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"

namespace kd::inline KD_ABI {

/// Means over `rows` rows. Terms come without their weights; `total` is the weighted sum that is minimised.
struct loss_terms {
  double total = 0;               ///< ce_weight * cross_entropy + kd_weight * kd
  double cross_entropy = 0;       ///< -log softmax(z)_y
  double kd = 0;                  ///< T^2 KL(softmax(t/T) || softmax(z/T)); 0 without a teacher
  double soft_cross_entropy = 0;  ///< -T^2 sum softmax(t/T) log softmax(z/T): kd plus T^2 times the teacher's entropy
  double accuracy = 0;            ///< fraction of rows whose largest student logit (the first of equals) is the label
  double teacher_agreement = 0;   ///< fraction of rows where student and teacher have the same largest class
  std::size_t rows = 0;

  /// Joins the means of two sets of rows, each weighted by its rows, so that batches add up to an epoch.
  loss_terms& operator+=(const loss_terms& other) {
    if (other.rows == 0) return *this;
    const double all = static_cast<double>(rows) + static_cast<double>(other.rows);
    const double mine = static_cast<double>(rows) / all, theirs = static_cast<double>(other.rows) / all;
    for (double loss_terms::*term :
         {&loss_terms::total, &loss_terms::cross_entropy, &loss_terms::kd, &loss_terms::soft_cross_entropy,
          &loss_terms::accuracy, &loss_terms::teacher_agreement})
      this->*term = this->*term * mine + other.*term * theirs;
    rows += other.rows;
    return *this;
  }
};

/// What was found in a row that has no finite loss.
enum class loss_fault_kind : std::uint8_t {
  none,
  student_nan,
  student_infinite,    // plus infinity
  student_all_masked,  // minus infinity for every class
  teacher_nan,
  teacher_infinite,
  teacher_all_masked,
  label_masked,                  // the student gives the label probability 0: infinite cross entropy
  class_masked_in_student_only,  // the teacher gives the class a probability: infinite KL
  overflow,                      // finite logits too far apart for float
  label_out_of_range,            // found by the CUDA device, which cannot throw; class_index is the label
};

/// The first row without a finite loss; `class_index` means nothing for the *_all_masked and overflow kinds.
struct loss_fault {
  loss_fault_kind kind = loss_fault_kind::none;
  std::size_t row = 0;
  std::size_t class_index = 0;
};

/// The outcome of one call: the terms, or the fault that makes them (and the gradient) void.
struct loss_result {
  loss_terms terms;
  loss_fault fault;
  bool finite() const { return fault.kind == loss_fault_kind::none; }
};

/// "student logits have a NaN at row 3, class 7".
inline std::string text_of(const loss_fault& fault) {
  const std::string row = text("row ", fault.row);
  const std::string place = text("row ", fault.row, ", class ", fault.class_index);
  switch (fault.kind) {
    case loss_fault_kind::none:
      return "every term is finite";
    case loss_fault_kind::student_nan:
      return text("student logits have a NaN at ", place);
    case loss_fault_kind::student_infinite:
      return text("student logits have a plus infinity at ", place);
    case loss_fault_kind::student_all_masked:
      return text("student logits are minus infinity in every class of ", row);
    case loss_fault_kind::teacher_nan:
      return text("teacher logits have a NaN at ", place);
    case loss_fault_kind::teacher_infinite:
      return text("teacher logits have a plus infinity at ", place);
    case loss_fault_kind::teacher_all_masked:
      return text("teacher logits are minus infinity in every class of ", row);
    case loss_fault_kind::label_masked:
      return text("cross entropy is infinite, the student's logit of the label is minus infinity at ", place);
    case loss_fault_kind::class_masked_in_student_only:
      return text("KL is infinite, a class that the teacher gives a probability is masked in the student at ", place);
    case loss_fault_kind::overflow:
      return text("logits too far apart for float at ", row);
    case loss_fault_kind::label_out_of_range:
      return text("the label is no class of the logits, it is ", static_cast<std::int64_t>(fault.class_index), " at ",
                  row);
  }
  throw argument_error(text("text_of(loss_fault): unknown kind ", static_cast<int>(fault.kind)));
}

/// Returns the terms, or throws non_finite_error with the loss's name and the place.
inline const loss_terms& require_finite(const loss_result& result, std::string_view loss) {
  if (!result.finite())
    throw non_finite_error(text(loss, ": ", text_of(result.fault),
                                "; terms and gradient are void: look at the logits and labels of that row"));
  return result.terms;
}

}  // namespace kd::inline KD_ABI
