/// Divergences from a teacher of whom k classes were kept, without a dense row of it: all other classes are one.
///
/// The k logits of each row and one for the rest, u = T log sum exp(z/T) over the classes not kept, are k + 1 classes
/// on which any divergence is computed as it always is. The gradient by u is shared out: du/dz = softmax of the rest's
/// z/T. Where the teacher has no probability in the rest this changes no divergence of the two distributions.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <vector>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/cpu/detail/merged_rows.hpp"
#include "kd/cpu/device.hpp"
#include "kd/cpu/exponential.hpp"
#include "kd/cpu/logit_loss.hpp"
#include "kd/formula/logit_batch.hpp"
#include "kd/forward_backward.hpp"
#include "kd/loss/formula_of.hpp"
#include "kd/loss/loss_terms.hpp"
#include "kd/loss/require_merged.hpp"
#include "kd/loss/top_k_teacher.hpp"

namespace kd::inline KD_ABI {
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
  detail::require_merged<Formula>(name, batch, teacher);
  if (teacher.rest == top_k_rest::one_bucket && formula.teacher_temperature != 1)
    reject_argument(name, "teacher_temperature must be 1 where the rest is one bucket", formula.teacher_temperature,
                    "log-probabilities at another temperature are not known");
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
