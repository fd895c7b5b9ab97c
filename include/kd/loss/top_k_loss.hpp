/// Divergences from a teacher of whom k classes were kept, without a dense row of it: all other classes are one.
///
/// The k logits of each row and one for the rest, u = T log sum exp(z/T) over the classes not kept, are k + 1 classes
/// on which any divergence is computed as it always is. The gradient by u is shared out: du/dz = softmax of the rest's
/// z/T. Where the teacher has no probability in the rest this changes no divergence of the two distributions.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <type_traits>
#include <vector>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/cpu/detail/merged_rows.hpp"
#include "kd/cpu/device.hpp"
#include "kd/cpu/exponential.hpp"
#include "kd/cpu/logit_loss.hpp"
#include "kd/formula/dist.hpp"
#include "kd/formula/logit_batch.hpp"
#include "kd/formula/logit_loss.hpp"
#include "kd/forward_backward.hpp"
#include "kd/loss/formula_of.hpp"
#include "kd/loss/loss_terms.hpp"
#include "kd/loss/require_arrays.hpp"
#include "kd/loss/top_k_teacher.hpp"

namespace kd::inline KD_ABI {
namespace detail {

template <class Formula>
struct merges_classes : std::false_type {};
template <class... Terms>
struct merges_classes<formula::logit_loss<Terms...>>
    : std::bool_constant<((Terms::side == formula::terms::softened && !formula::detail::label_apart_of<Terms>() &&
                           !formula::detail::standardises_of<Terms>() && !std::is_same_v<Terms, formula::dist>)&&...)> {
};
/// For require_arrays: the student's logits and the gradient.
struct student_alone {
  static constexpr bool needs_teacher = false, needs_label = false;
};

/// Throws argument_error for what a loss of top_k_rows cannot be.
template <class Formula, class Batch, class Rows>
void require_merged(const char* name, const Formula& formula, const Batch& batch, const Rows& teacher) {
  static_assert(merges_classes<Formula>::value,
                "kd::forward_backward: with top_k_rows a loss is made of divergences of distributions alone, without "
                "hard terms, logit_mse, dkd, dist or standardised_kd. Call it for cross entropy apart, with "
                "add_to_gradient");
  if (teacher.rest == top_k_rest::spread)
    reject_argument(name, "the rest must be masked or one_bucket", "spread", "make dense rows with kd::expand_top_k");
  if (teacher.rest == top_k_rest::one_bucket && formula.teacher_temperature != 1)
    reject_argument(name, "teacher_temperature must be 1 where the rest is one bucket", formula.teacher_temperature,
                    "log-probabilities at another temperature are not known");
  if (batch.teacher.data != nullptr)
    reject_argument(name, "batch.teacher must be null beside top_k_rows", "two teachers", "leave it out");
  if (teacher.rows != batch.rows || teacher.classes != batch.classes)
    reject_argument(name, text("top_k_rows must have ", batch.rows, " rows of ", batch.classes, " classes"),
                    text(teacher.rows, " of ", teacher.classes), "keep the teacher's classes of the student's rows");
  require_arrays<student_alone>(name, batch);
  require_top_k_arrays(name, teacher);
  const memory_range gradient = range_of(name, "gradient", batch.gradient, batch.classes, batch.rows, batch.group_rows);
  if (gradient.overlaps(range_of(name, "indices", teacher.indices, teacher.k, teacher.rows, 0)) ||
      gradient.overlaps(range_of(name, "values", teacher.values, teacher.k, teacher.rows, 0)))
    reject_argument(name, "the gradient must not share memory with top_k_rows", "arrays that overlap",
                    "pass an array of its own");
}

}  // namespace detail

/// The same for a teacher of whom k classes were kept, the rest masked or one bucket, and losses that are divergences
/// alone: cross entropy goes in a call of its own that adds to the gradient.
///
///   kd::forward_backward(kd::weighted_sum{kd::softening{}, kd::weighted_term{1, kd::formula::forward_kl{}}}, batch,
///                        kd::top_k_rows{.rows = 128, .classes = 50257, .k = 64, .indices = {i}, .values = {log_p},
///                                       .rest = kd::top_k_rest::one_bucket});
///
/// batch.teacher is left out. Labels say which rows are ignored, whose classes are not looked at, and what is correct.
/// What one bucket has is known at a teacher's temperature of 1 alone. With partial_kl and masked the rest is dropped,
/// as in losses of the k's log probabilities. The student is read twice; about 12 (k + 1) bytes a row are allocated.
/// Throws as above, and as kd::expand_top_k.
template <class Loss, class Student, class Teacher, class Label, class Gradient, class Value, class Index>
loss_terms forward_backward(const Loss& loss, const formula::logit_batch<Student, Teacher, Label, Gradient>& batch,
                            const top_k_rows<Value, Index>& teacher, const cpu::device& device = {}) {
  constexpr const char* name = Loss::name;
  loss.validate();
  const auto formula = loss.formula();
  using Formula = formula_of<Loss>;
  loss_terms terms;
  for (const std::string_view value : value_names<Formula>) terms.list[terms.size++].name = value;
  if (batch.rows == 0) return terms;
  detail::require_merged(name, formula, batch, teacher);
  std::vector<std::size_t> list(batch.rows);
  const auto rows = cpu::detail::rows_counted(name, batch, batch.classes, list.data());
  const double divide_by = cpu::detail::divisor_of(batch, rows);
  for (std::size_t i = 0; i < rows.count; ++i) detail::require_top_k_row(name, teacher, rows[i]);
  if (rows.count == 0) {
    cpu::detail::clear_ignored(batch, rows);
    return terms;
  }

  const cpu::parallel& threads = device.threads();
  cpu::detail::merged_rows<formula::logit_batch<Student, Teacher, Label, Gradient>, top_k_rows<Value, Index>> merged = {
      batch, teacher, rows, cpu::exponential_scale(formula.temperature)};
  threads.for_each(rows.count, [&](std::size_t i) { merged.read(i, divide_by); });
  if (batch.gradient.data) merged.gradient.resize(merged.student.size());
  constexpr std::size_t values = Formula::values + 1;
  std::vector<double> row_values(batch.row_values ? rows.count * values : 0);
  std::vector<std::byte> scratch(cpu::logit_loss_scratch(threads, rows.count, merged.classes));
  loss_result result = cpu::detail::fused_loss<cpu::native_width>(
      name, threads,
      formula::logit_batch<float>{.rows = rows.count,
                                  .classes = merged.classes,
                                  .student = {merged.student.data()},
                                  .teacher = {merged.teachers.data()},
                                  .row_weights = merged.weights.data(),
                                  .divide_by = formula::divisor::one,
                                  .upstream = merged.upstream.data(),
                                  .upstream_per_row = true,
                                  .gradient = {batch.gradient.data ? merged.gradient.data() : nullptr},
                                  .row_values = batch.row_values ? row_values.data() : nullptr},
      formula, scratch);
  if (!result.finite()) result.fault = merged.place_of(result.fault);
  terms = require_finite(result, name);

  double correct = 0, agrees = 0;
  for (std::size_t i = 0; i < rows.count; ++i) {
    correct += merged.correct[i];
    agrees += merged.agrees[i];
  }
  terms.accuracy = correct / static_cast<double>(rows.count);
  terms.teacher_agreement = agrees / static_cast<double>(rows.count);
  terms.total /= divide_by;
  for (std::size_t j = 0; j < terms.size; ++j) terms.list[j].value /= divide_by;
  if (batch.row_values) {
    std::fill_n(batch.row_values, batch.rows * values, 0.0);
    for (std::size_t i = 0; i < rows.count; ++i)
      std::copy_n(&row_values[i * values], values, batch.row_values + rows[i] * values);
  }

  if (!batch.gradient.data) return terms;
  cpu::detail::clear_ignored(batch, rows);
  threads.for_each(rows.count, [&](std::size_t i) {
    const float* const of_row = &merged.gradient[i * merged.classes];
    merged.split(i).write(merged.rest[i], merged.scale, of_row, of_row[merged.k], batch.add_to_gradient,
                          cpu::detail::row_at(batch.gradient, batch.classes, batch.group_rows, rows[i]));
  });
  return terms;
}

}  // namespace kd::inline KD_ABI
