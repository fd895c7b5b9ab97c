/// What a loss function reports: its terms apart, the hit rates, and the first value that is not finite.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/formula/logit_loss.hpp"
#include "kd/formula/loss_sums.hpp"

namespace kd::inline KD_ABI {

struct loss_term {
  std::string_view name;
  double value = 0;
};

/// Means over `rows` rows. Terms come without their weights; `total` is the weighted sum that is minimised.
struct loss_terms {
  double total = 0;
  double accuracy = 0;           ///< fraction of rows whose largest student logit (the first of equals) is the label
  double teacher_agreement = 0;  ///< fraction of rows where student and teacher have the same largest class
  std::size_t rows = 0;
  std::array<loss_term, formula::most_loss_values> list = {};  ///< the first `size` count
  std::size_t size = 0;

  /// In the loss's order: of distillation kd, which is T^2 KL(softmax(t/T) || softmax(z/T)), soft_cross_entropy, which
  /// is more by T^2 times the teacher's entropy, and cross_entropy.
  std::span<const loss_term> terms() const { return {list.data(), size}; }
  /// The value of a term. Throws argument_error where the loss has none of that name.
  double operator[](std::string_view name) const {
    std::string there;
    for (const loss_term& term : terms()) {
      if (term.name == name) return term.value;
      there += text(there.empty() ? "" : ", ", term.name);
    }
    reject_argument("kd::loss_terms", text("the name must be that of a term (", there, ")"), name,
                    "look at loss_terms::terms");
  }
};

namespace detail {

template <class Loss>
constexpr std::array<std::string_view, Loss::values> names_of_values() {
  std::array<std::string_view, Loss::values> names;
  Loss::each([&](auto index) {
    using term = typename Loss::template term_at<decltype(index)::value>;
    std::size_t at = Loss::template first_value<decltype(index)::value>;
    if constexpr (requires { term::value_name; })
      names[at++] = term::value_name;
    else
      names[at++] = term::name;
    if constexpr (requires { term::watched; })
      for (const char* const name : term::watched) names[at++] = name;
  });
  return names;
}

}  // namespace detail

/// The names of what a formula::logit_loss reports, in its order.
template <class Loss>
inline constexpr std::array<std::string_view, Loss::values> value_names = [] {
  static_assert(Loss::values <= formula::most_loss_values, "kd: a loss reports at most 8 values: join fewer terms");
  return detail::names_of_values<Loss>();
}();

using formula::loss_fault_kind;

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
    case loss_fault_kind::class_masked_in_teacher_only:
      return text("the loss is infinite, a class that the student gives a probability is masked in the teacher at ",
                  place);
    case loss_fault_kind::overflow:
      return text("logits too far apart for float at ", row);
    case loss_fault_kind::label_out_of_range:
      return text("the label is no class of the logits, it is ", static_cast<std::int64_t>(fault.class_index), " at ",
                  row);
    case loss_fault_kind::row_weight:
      return text("the row's weight is negative or not finite at ", row);
  }
  throw argument_error(text("text_of(loss_fault): unknown kind ", static_cast<unsigned>(fault.kind)));
}

/// Returns the terms, or throws non_finite_error with the loss's name and the place.
inline const loss_terms& require_finite(const loss_result& result, std::string_view loss) {
  if (!result.finite())
    throw non_finite_error(text(loss, ": ", text_of(result.fault),
                                "; terms and gradient are void: look at the logits and labels of that row"));
  return result.terms;
}

}  // namespace kd::inline KD_ABI
