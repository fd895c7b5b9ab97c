/// The losses on logits of a vocabulary that is split: each device or process has some of the classes of every row.
///
/// Each part reads its classes; the parts exchange a small record for each row (an all-gather), join them in the order
/// of the parts, and each writes the gradient of its own classes and gets the terms of the whole:
///
///   read_slice(threads, batch, loss, slice, scratch, mine);                       // then exchange `mine`
///   join_slices(loss, all_parts, joined);
///   if (has_second_sweep<Loss>) {
///     sum_slice(threads, batch, loss, slice, joined, scratch, my_sums);           // then exchange `my_sums`
///     join_sums<Loss>(all_sums, joined_sums);
///   }
///   loss_result result = finish_slice(threads, batch, loss, slice, joined, joined_sums, scratch);
///
/// `batch` is a formula::logit_batch of this part's classes, whose labels are those of all of them. One split gives the
/// same bits wherever its parts are; another split rounds otherwise. Logits are read two times, three with a second
/// sweep.
#pragma once

#include <cstddef>
#include <span>
#include <type_traits>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/cpu/logit_loss.hpp"
#include "kd/loss/formula_of.hpp"

namespace kd::inline KD_ABI::cpu {

/// batch.classes classes from `first` on, of `classes` in all parts.
struct vocabulary_slice {
  std::size_t first = 0, classes = 0;
};

namespace detail {

/// What a slice knows of a row; plain memory, for any exchange.
template <class Formula>
struct slice_row {
  row_sums<Formula> all = {};
  float student_label = 0, teacher_label = 0;
  bool has_label = false;
};

struct slice_place {
  static constexpr bool is_whole = false;
  std::size_t first, classes;
  std::size_t all_classes(std::size_t) const { return classes; }
};
template <class Formula>
struct reading_slice : slice_place {
  static constexpr bool ends = false;
  slice_row<Formula>* out;
  bool join(std::size_t row, bool has_label, row_sums<Formula>& all, float& z_label, float& t_label) const {
    out[row] = {all, z_label, t_label, has_label};
    return false;
  }
  template <std::size_t Size>
  bool join(std::size_t, formula::few<double, Size>&) const {
    return false;
  }
};
template <class Formula>
struct joined_slice : slice_place {
  const slice_row<Formula>* joined;
  bool join(std::size_t row, bool, row_sums<Formula>& all, float& z_label, float& t_label) const {
    all = joined[row].all;
    z_label = joined[row].student_label;
    t_label = joined[row].teacher_label;
    return true;
  }
};
template <class Formula>
struct summing_slice : joined_slice<Formula> {
  static constexpr bool ends = false;
  formula::few<double, Formula::probability_sums>* out;
  using joined_slice<Formula>::join;
  bool join(std::size_t row, formula::few<double, Formula::probability_sums>& sums) const {
    out[row] = sums;
    return false;
  }
};
template <class Formula>
struct finishing_slice : joined_slice<Formula> {
  static constexpr bool ends = true;
  const formula::few<double, Formula::probability_sums>* sums;
  using joined_slice<Formula>::join;
  bool join(std::size_t row, formula::few<double, Formula::probability_sums>& of_row) const {
    of_row = sums[row];
    return true;
  }
};

template <class Loss, class Batch>
slice_place require_slice(const Loss& loss, const Batch& batch, const vocabulary_slice& slice, std::size_t records) {
  static_assert(!formula_of<Loss>::standardises,
                "kd::cpu::split_vocabulary: a loss that standardises logits would exchange their mean and deviation "
                "before it reads them: gather the rows instead");
  loss.validate();
  if (slice.first > slice.classes || batch.classes > slice.classes - slice.first)
    reject_argument(Loss::name, text("the slice must lie in [0,", slice.classes, ")"),
                    text("[", slice.first, ",", slice.first + batch.classes, ")"),
                    "pass its first class and the number of all");
  if (records < batch.rows)
    reject_argument(Loss::name, text("there must be a record for each of ", batch.rows, " rows"), records,
                    "pass spans of batch.rows");
  return {slice.first, slice.classes};
}

}  // namespace detail

/// Of one row.
template <class Loss>
using slice_row = detail::slice_row<formula_of<Loss>>;
template <class Loss>
using slice_sums = formula::few<double, formula_of<Loss>::probability_sums>;
template <class Loss>
inline constexpr bool has_second_sweep = formula_of<Loss>::probability_sums > 0;

/// Reads this part's classes: out[row] for every row that is not ignored. Throws argument_error as
/// logit_loss_forward_backward, for a slice outside the vocabulary, and for a span with fewer records than rows.
template <class Loss, class Student, class Teacher, class Label, class Gradient>
void read_slice(const parallel& par, const formula::logit_batch<Student, Teacher, Label, Gradient>& batch,
                const Loss& loss, const vocabulary_slice& slice, std::span<std::byte> scratch,
                std::span<slice_row<Loss>> out) {
  const detail::slice_place place = detail::require_slice(loss, batch, slice, out.size());
  auto values = batch;
  values.gradient = {};
  values.row_values = nullptr;
  detail::fused_loss<native_width>(Loss::name, par, values, loss.formula(), scratch,
                                   detail::reading_slice<formula_of<Loss>>{place, out.data()});
}

/// Joins the records of all parts, in their order. Throws argument_error where a part has another number of rows.
template <class Loss>
void join_slices(const Loss&, std::span<const std::span<const slice_row<Loss>>> parts,
                 std::span<slice_row<Loss>> joined) {
  for (const auto& part : parts)
    if (part.size() != joined.size())
      reject_argument(Loss::name, text("each part must have ", joined.size(), " rows"), part.size(),
                      "join parts of one batch");
  for (std::size_t row = 0; row < joined.size(); ++row) {
    slice_row<Loss> whole;
    for (const auto& part : parts) {
      const slice_row<Loss>& one = part[row];
      if (one.all.student_max > whole.all.student_max) {
        whole.all.student_max = one.all.student_max;
        whole.all.student_class = one.all.student_class;
      }
      if (one.all.teacher_max > whole.all.teacher_max) {
        whole.all.teacher_max = one.all.teacher_max;
        whole.all.teacher_class = one.all.teacher_class;
      }
      whole.all.inverse_T = one.all.inverse_T;
      whole.all.inverse_teacher_T = one.all.inverse_teacher_T;
      if (!one.has_label) continue;
      whole.student_label = one.student_label;
      whole.teacher_label = one.teacher_label;
      whole.has_label = true;
    }
    for (const auto& part : parts) whole.all.template add<detail::student_exponentials::separate>(part[row].all);
    joined[row] = whole;
  }
}

/// The second sweep of losses that have one. Throws argument_error as read_slice.
template <class Loss, class Student, class Teacher, class Label, class Gradient>
void sum_slice(const parallel& par, const formula::logit_batch<Student, Teacher, Label, Gradient>& batch,
               const Loss& loss, const vocabulary_slice& slice, std::span<const slice_row<Loss>> joined,
               std::span<std::byte> scratch, std::span<slice_sums<Loss>> out) {
  static_assert(has_second_sweep<Loss>, "kd::cpu::sum_slice: this loss has no second sweep: leave the call away");
  const detail::slice_place place = detail::require_slice(loss, batch, slice, std::min(joined.size(), out.size()));
  auto values = batch;
  values.gradient = {};
  values.row_values = nullptr;
  detail::fused_loss<native_width>(Loss::name, par, values, loss.formula(), scratch,
                                   detail::summing_slice<formula_of<Loss>>{{place, joined.data()}, out.data()});
}
/// Throws argument_error where a part has another number of rows.
template <class Loss>
void join_sums(std::span<const std::span<const slice_sums<Loss>>> parts, std::span<slice_sums<Loss>> joined) {
  for (const auto& part : parts)
    if (part.size() != joined.size())
      reject_argument(Loss::name, text("each part must have ", joined.size(), " rows"), part.size(),
                      "join parts of one batch");
  for (std::size_t row = 0; row < joined.size(); ++row) {
    joined[row] = {};
    for (const auto& part : parts)
      for (std::size_t i = 0; i != formula_of<Loss>::probability_sums; ++i) joined[row].at[i] += part[row].at[i];
  }
}

/// The terms of the whole rows, the same for every part, and the gradient of this part's classes. Where a row has no
/// finite loss every part names that row: the part that has its cause says what it is, and the others overflow.
/// @param sums of join_sums; empty for losses without a second sweep
/// Throws argument_error as read_slice.
template <class Loss, class Student, class Teacher, class Label, class Gradient>
loss_result finish_slice(const parallel& par, const formula::logit_batch<Student, Teacher, Label, Gradient>& batch,
                         const Loss& loss, const vocabulary_slice& slice, std::span<const slice_row<Loss>> joined,
                         std::span<const slice_sums<Loss>> sums, std::span<std::byte> scratch) {
  const std::size_t records = has_second_sweep<Loss> ? std::min(joined.size(), sums.size()) : joined.size();
  const detail::slice_place place = detail::require_slice(loss, batch, slice, records);
  return detail::fused_loss<native_width>(
      Loss::name, par, batch, loss.formula(), scratch,
      detail::finishing_slice<formula_of<Loss>>{{place, joined.data()}, sums.data()});
}

}  // namespace kd::inline KD_ABI::cpu
