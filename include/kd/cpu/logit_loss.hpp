/// The losses on logits of the CPU device: raw logits in, terms and the student's gradient out, for every formula.
///
/// Limits: rows * classes in 64 bits; a row is never split, so that fewer rows than threads leave threads idle.
/// Checked against float64 definitions in tests/cpu/logit_loss_test.cpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/labels.hpp"
#include "kd/core/sizes.hpp"
#include "kd/cpu/detail/loss_block.hpp"
#include "kd/cpu/detail/loss_call.hpp"
#include "kd/cpu/detail/loss_row.hpp"
#include "kd/cpu/exponential.hpp"
#include "kd/cpu/parallel.hpp"
#include "kd/formula/logit_batch.hpp"
#include "kd/loss/loss_terms.hpp"
#include "kd/loss/require_arrays.hpp"

namespace kd::inline KD_ABI::cpu {

namespace detail {

/// Bytes that the threads of a loss work in.
constexpr std::size_t loss_thread_bytes(const parallel& par, std::size_t rows, std::size_t classes) {
  const std::size_t threads = std::min<std::size_t>(static_cast<std::size_t>(std::max(par.threads, 1)), rows);
  return threads * loss_thread_floats(classes) * sizeof(float);
}

}  // namespace detail

/// Bytes of scratch that any loss needs for up to `rows` rows; any alignment will do. Throws argument_error where the
/// logits themselves would not fit an address.
constexpr std::size_t logit_loss_scratch(const parallel& par, std::size_t rows, std::size_t classes) {
  constexpr std::size_t row_bytes = detail::most_loss_row_bytes + sizeof(std::size_t);
  // With 128 bytes a logit, more than its share of the sum below, which therefore cannot wrap.
  (void)product_of("kd::cpu::logit_loss_scratch", {rows, classes, 128}, "pass fewer rows");
  static_assert(row_bytes <= 128);
  return 64 + detail::loss_thread_bytes(par, rows, classes) + rows * row_bytes +
         detail::loss_parts_of(rows) * detail::most_loss_part_bytes;
}

/// The terms of a loss, divided by what the batch says, and the gradient by the student's logits, written or added.
///
/// `loss` is kd::distillation, kd::cross_entropy or another type with a name, validate() and formula(). `scratch` has
/// logit_loss_scratch(par, rows, classes) bytes. No rows, and rows that are all ignored, give terms of 0; the result's
/// `rows`, accuracy and agreement count the rows that are not ignored. Results do not depend on the threads, nor a
/// row's, before the division, on the other rows. Where a row has no finite loss, the result names the first one and
/// terms and gradient are void (rows at fault are not written); pass it through require_finite. A hard term of weight 0
/// is infinite, and no fault, where the label is masked; its part of total and gradient is 0.
///
/// The gradient's array may be the student's (in place, with the same strides); any other overlap with the logits is
/// refused. Throws argument_error for bad options, labels, weights, sizes, scratch, overlaps or null pointers, before
/// anything is written.
template <class Loss, class Student, class Teacher, class Label, class Gradient>
loss_result logit_loss_forward_backward(const parallel& par,
                                        const formula::logit_batch<Student, Teacher, Label, Gradient>& batch,
                                        const Loss& loss, std::span<std::byte> scratch);

namespace detail {

/// Below this many logits a second thread costs more than it saves (measured on 2 cores: 128 x 10 and 128 x 100).
inline constexpr std::size_t loss_parallel_logits = 16384;
/// The same for the rows whose values are summed, half of which lie in the cache of another thread: 30 ns each.
inline constexpr std::size_t loss_parallel_rows = 256;
/// From this many bytes of gradient on, stores go past the caches, which could not hold it for the next reader.
inline constexpr std::size_t loss_streaming_bytes = std::size_t{8} << 20;
/// Not where rows are short: at the end of each a line is written in part, and then read to be written. At 4 million
/// logits 257 classes took 1.6 times as long with streamed stores, 768 1.07, and 2,048 0.87.
inline constexpr std::size_t loss_streaming_classes = 1024;

/// Finds out why a row has no finite loss, as far as its classes that are here say so.
template <class Call, class Slice>
inline loss_fault diagnose(const Call& a, std::size_t row, const Slice& slice) {
  using Loss = typename Call::Loss;
  constexpr float infinity = std::numeric_limits<float>::infinity();
  using enum loss_fault_kind;
  const std::size_t classes = a.classes(), known = std::min(classes, a.teacher_classes());
  const auto* z = a.student(row);
  const auto* t = Loss::needs_teacher ? a.teacher(row) : nullptr;
  const auto scan = [&](const auto* x, std::size_t count, loss_fault_kind nan, loss_fault_kind infinite,
                        loss_fault_kind masked) {
    bool all_masked = true;
    for (std::size_t c = 0; c < count; ++c) {
      const float logit = to_float(x[c]);
      if (logit != logit) return loss_fault{nan, row, slice.first + c};
      if (logit == infinity) return loss_fault{infinite, row, slice.first + c};
      all_masked = all_masked && logit == -infinity;
    }
    return loss_fault{all_masked && Slice::is_whole ? masked : none, row, 0};
  };
  if (const auto fault = scan(z, classes, student_nan, student_infinite, student_all_masked); fault.kind != none)
    return fault;
  if constexpr (Loss::needs_teacher)
    if (const auto fault = scan(t, known, teacher_nan, teacher_infinite, teacher_all_masked); fault.kind != none)
      return fault;
  if constexpr (Loss::needs_label)
    if (const std::size_t label = a.label(row), here = label - slice.first; here < classes)
      if (to_float(z[here]) == -infinity) return {label_masked, row, label};
  if constexpr (Loss::needs_teacher) {
    // Of the classes masked on one side alone the one that the other side holds likeliest.
    const auto worst = [&](const auto& of, const auto& in) {
      std::size_t at = classes;
      for (std::size_t c = 0; c < classes; ++c)
        if (in(c) == -infinity && of(c) != -infinity && (at == classes || of(c) > of(at))) at = c;
      return at;
    };
    const auto student = [&](std::size_t c) { return to_float(z[c]); };
    const auto teacher = [&](std::size_t c) { return c < known ? to_float(t[c]) : -infinity; };
    if (Loss::infinite_where_student_is_0)
      if (const std::size_t at = worst(teacher, student); at < classes)
        return {class_masked_in_student_only, row, slice.first + at};
    if (Loss::infinite_where_teacher_is_0)
      if (const std::size_t at = worst(student, teacher); at < classes)
        return {class_masked_in_teacher_only, row, slice.first + at};
  }
  return {overflow, row, 0};
}

/// All rows of a call: their values into `out`, and gradients.
template <std::size_t Width, student_exponentials Kind, class Call, class Slice = whole_vocabulary>
inline void loss_of_rows(const parallel& par, const Call& a, const counted_rows& rows,
                         loss_row<typename Call::Loss>* out, float* thread_scratch, const Slice& slice = {}) {
  using Loss = typename Call::Loss;
  const std::size_t classes = a.classes(), count = rows.count;
  const parallel team = count * classes < loss_parallel_logits ? parallel{1} : par;
  if (Slice::is_whole && classes <= loss_block_classes) {
    team.for_each((count + Width - 1) / Width, [&](std::size_t block) {
      const std::size_t first = block * Width;
      loss_of_block<Width, Kind>(a, rows, first, std::min(Width, count - first), out + first);
    });
    return;
  }
  const std::size_t row_floats = loss_row_floats(classes);
  team.split(count, [&](std::size_t begin, std::size_t end, std::size_t thread) {
    float* mine = thread_scratch + thread * loss_thread_floats(classes);
    const loss_row_scratch<Loss> scratch = {mine, mine + row_floats, mine + 2 * row_floats,
                                            reinterpret_cast<loss_tile<Loss>*>(mine + 3 * row_floats + 16)};
    for (std::size_t i = begin; i < end; ++i) loss_of_row<Width, Kind>(a, rows[i], scratch, out[i], slice);
    if (a.how == writing::streamed) finish_streaming();
  });
}

/// Finds the rows that count, with space in `list` for as many as there are; throws for the first label or weight that
/// is none.
template <class Student, class Teacher, class Label, class Gradient>
inline counted_rows rows_counted(const char* name, const formula::logit_batch<Student, Teacher, Label, Gradient>& batch,
                                 std::size_t classes, std::size_t* list) {
  counted_rows rows = {nullptr, batch.rows, static_cast<double>(batch.rows)};
  if (batch.labels.data) {
    std::size_t plain = 0;
    for (std::size_t row = 0; row < batch.rows; ++row) {
      const std::int64_t label = *row_at(batch.labels, 1, batch.group_rows, row);
      plain += label != batch.ignore_index && static_cast<std::uint64_t>(label) < classes;
    }
    if (plain < batch.rows) {
      rows = {list, 0, 0};
      for (std::size_t row = 0; row < batch.rows; ++row) {
        const std::int64_t label = *row_at(batch.labels, 1, batch.group_rows, row);
        if (label == batch.ignore_index) continue;
        require_label(name, row, label, classes);
        list[rows.count++] = row;
      }
      rows.weights = static_cast<double>(rows.count);
    }
  }
  if (batch.row_weights) {
    rows.weights = 0;
    for (std::size_t i = 0; i < rows.count; ++i) {
      const float weight = batch.row_weights[rows[i]];
      if (!(weight >= 0 && weight <= std::numeric_limits<float>::max()))
        reject_argument(name, text("row weight ", rows[i], " must be finite and not negative"), weight,
                        "0 leaves the row out of sum and gradient");
      rows.weights += weight;
    }
  }
  return rows;
}

/// By what the batch divides; of nothing but zeros 1.
template <class Batch>
inline double divisor_of(const Batch& batch, const counted_rows& rows) {
  using formula::divisor;
  const double by = batch.divide_by == divisor::rows         ? static_cast<double>(batch.rows)
                    : batch.divide_by == divisor::valid_rows ? static_cast<double>(rows.count)
                    : batch.divide_by == divisor::weights    ? rows.weights
                                                             : 1.0;
  return by == 0 ? 1 : by;
}

/// The gradient of rows that are ignored is 0, or has 0 added.
template <class Batch>
inline void clear_ignored(const Batch& batch, const counted_rows& rows) {
  if (!batch.gradient.data || batch.add_to_gradient || rows.count == batch.rows) return;
  std::size_t next = 0;
  for (std::size_t row = 0; row < batch.rows; ++row) {
    if (next < rows.count && rows[next] == row)
      ++next;
    else
      std::fill_n(row_at(batch.gradient, batch.classes, batch.group_rows, row), batch.classes,
                  std::remove_reference_t<decltype(*batch.gradient.data)>{});
  }
}

/// The sums of rows[begin..end), up to the first one that is at fault.
template <class Loss>
loss_part<Loss> part_of(const loss_row<Loss>* rows, const counted_rows& counted, std::size_t begin, std::size_t end,
                        const float* row_weights) {
  loss_part<Loss> sums = {};
  for (std::size_t i = begin; i < end; ++i) {
    const loss_row<Loss>& row = rows[i];
    if (!row.finite) {
      sums.at_fault = i;
      return sums;
    }
    const double weight = row_weights ? row_weights[counted[i]] : 1.0;
    sums.total += weight * row.total;
    for (std::size_t k = 0; k < Loss::values; ++k) sums.values[k] += weight * row.values[k];
    sums.correct += row.correct;
    sums.agrees += row.agrees;
  }
  return sums;
}

/// Any loss, for any vector width (the native one; 1 is the portable twin).
template <std::size_t Width, class Loss, class Student, class Teacher, class Label, class Gradient,
          class Slice = whole_vocabulary>
inline loss_result fused_loss(const char* name, const parallel& par,
                              const formula::logit_batch<Student, Teacher, Label, Gradient>& batch, const Loss& loss,
                              std::span<std::byte> scratch, const Slice& slice = {}) {
#if defined(__CUDA_ARCH__)  // nvcc's pass for the device needs no host code, and takes no vector in a formula
  return {};
#else
  static_assert(sizeof(loss_row<Loss>) <= most_loss_row_bytes && sizeof(loss_part<Loss>) <= most_loss_part_bytes &&
                    sizeof(loss_tile<Loss>) <= 4 * most_loss_tile_floats,
                "kd::cpu: a loss has at most 8 values and 8 logit sums: join fewer terms");
  loss_result result;
  for (const std::string_view value : value_names<Loss>) result.terms.list[result.terms.size++].name = value;
  if (batch.rows == 0) return result;
  if (batch.classes == 0)
    reject_argument(name, "there must be at least one class", batch.classes, "pass the logits' width");
  const std::size_t need = logit_loss_scratch(par, batch.rows, batch.classes);
  kd::detail::require_arrays<Loss>(name, batch);
  if (scratch.size() < need)
    reject_argument(name, text("scratch must have ", need, " bytes"), scratch.size(), "ask logit_loss_scratch");

  const std::size_t past = reinterpret_cast<std::uintptr_t>(scratch.data()) % 64;
  std::byte* aligned = scratch.data() + (past == 0 ? 0 : 64 - past);
  auto* thread_scratch = reinterpret_cast<float*>(aligned);
  std::byte* rows_begin = aligned + loss_thread_bytes(par, batch.rows, batch.classes);
  auto* rows = reinterpret_cast<loss_row<Loss>*>(rows_begin);
  auto* list = reinterpret_cast<std::size_t*>(rows_begin + batch.rows * most_loss_row_bytes);
  auto* parts = reinterpret_cast<loss_part<Loss>*>(list + batch.rows);

  const counted_rows counted = rows_counted(name, batch, slice.all_classes(batch.classes), list);
  const std::size_t count = counted.count;
  const double divide_by = divisor_of(batch, counted);
  const bool in_place = static_cast<const void*>(batch.gradient.data) == batch.student.data;
  const writing how = batch.add_to_gradient ? writing::added
                      : batch.gradient.data && !in_place && batch.classes >= loss_streaming_classes &&
                              batch.rows * batch.classes * sizeof(Gradient) >= loss_streaming_bytes
                          ? writing::streamed
                          : writing::plain;
  const loss_call<Loss, Student, Teacher, Label, Gradient> a = {loss, batch, divide_by, how};
  clear_ignored(batch, counted);

  using enum student_exponentials;
  const student_exponentials kind = exponentials_of(loss);
  if constexpr (Loss::softens && Loss::hardens) {
    if (kind == squared) loss_of_rows<Width, squared>(par, a, counted, rows, thread_scratch, slice);
    if (kind == separate) loss_of_rows<Width, separate>(par, a, counted, rows, thread_scratch, slice);
  }
  if (kind == shared) loss_of_rows<Width, shared>(par, a, counted, rows, thread_scratch, slice);
  if constexpr (!Slice::ends) return result;

  // Parts of so many rows whatever the threads, and their sums in order: the totals do not depend on the threads.
  const std::size_t part_count = loss_parts_of(count);
  const parallel team = count < loss_parallel_rows ? parallel{1} : par;
  team.for_each(part_count, [&](std::size_t p) {
    const std::size_t begin = p * loss_part_rows;
    parts[p] = part_of<Loss>(rows, counted, begin, std::min(begin + loss_part_rows, count), batch.row_weights);
  });
  loss_part<Loss> all = {};
  for (std::size_t p = 0; p < part_count; ++p) {
    if (parts[p].at_fault < count) return {{}, diagnose(a, counted[parts[p].at_fault], slice)};
    all.add(parts[p]);
  }
  loss_terms& terms = result.terms;
  const auto looked_at = static_cast<double>(std::max<std::size_t>(count, 1));
  terms.rows = count;
  terms.total = all.total / divide_by;
  for (std::size_t k = 0; k < Loss::values; ++k) terms.list[k].value = all.values[k] / divide_by;
  terms.accuracy = static_cast<double>(all.correct) / looked_at;
  terms.teacher_agreement = static_cast<double>(all.agrees) / looked_at;
  if (batch.row_values) {
    constexpr std::size_t width = Loss::values + 1;
    std::fill_n(batch.row_values, batch.rows * width, 0.0);
    for (std::size_t i = 0; i < count; ++i) {
      std::copy_n(rows[i].values, Loss::values, batch.row_values + counted[i] * width);
      batch.row_values[counted[i] * width + Loss::values] = rows[i].total;
    }
  }
  return result;
#endif
}

}  // namespace detail

template <class Loss, class Student, class Teacher, class Label, class Gradient>
inline loss_result logit_loss_forward_backward(const parallel& par,
                                               const formula::logit_batch<Student, Teacher, Label, Gradient>& batch,
                                               const Loss& loss, std::span<std::byte> scratch) {
  loss.validate();
  return detail::fused_loss<native_width>(Loss::name, par, batch, loss.formula(), scratch);
}

}  // namespace kd::inline KD_ABI::cpu
