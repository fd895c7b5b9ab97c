/// Divergences from a teacher of whom k classes were kept, on the GPU: as kd/loss/top_k_loss.hpp, asynchronously.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kd/core/error.hpp"
#include "kd/cuda/launch.hpp"
#include "kd/cuda/logit_loss.hpp"
#include "kd/cuda/stream.hpp"
#include "kd/formula/logit_batch.hpp"
#include "kd/formula/loss_sums.hpp"
#include "kd/formula/top_k_rows.hpp"
#include "kd/kernel/merged_rows.cuh"
#include "kd/loss/require_merged.hpp"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// Bytes of scratch, aligned to 8, for rows of which k classes were kept.
template <class Loss>
constexpr std::size_t top_k_loss_scratch(std::size_t rows, std::size_t k) {
  return logit_loss_scratch<Loss>(rows) + sizeof(formula::loss_sums) + rows * sizeof(kernel::merged_row) +
         rows * (3 * (k + 1) + 1) * sizeof(float) + 8;
}

/// Adds the loss of a batch and a top-k teacher to `sums`, and writes the gradient or adds it to what is there.
/// Semantics, and which losses there are, as kd::forward_backward with top_k_rows; faults, scratch and sums as
/// logit_loss_forward_backward. A row whose indices are no classes or stand twice, or whose probabilities sum to more
/// than 1 where the rest is one bucket, is reported as a NaN of the teacher.
/// @param loss in device memory, read when the kernels run: its teacher_temperature must be 1 where the rest is a
/// bucket
/// @param scratch top_k_loss_scratch<Loss>(rows, k) bytes, aligned to 8
/// Throws argument_error as logit_loss_forward_backward, and for k outside [1, 256] or above the classes, a rest that
/// is spread, batch.teacher beside the rows, and rows that are not the batch's.
template <class Loss, class Student, class Teacher, class Label, class Gradient, class Value, class Index>
KD_HIDDEN void logit_loss_forward_backward(stream_view s,
                                           const formula::logit_batch<Student, Teacher, Label, Gradient>& batch,
                                           const formula::top_k_rows<Value, Index>& teacher, const Loss* loss,
                                           std::byte* scratch, formula::loss_sums* sums) {
  constexpr const char* name = "kd::cuda::logit_loss_forward_backward";
  using batch_type = formula::logit_batch<Student, Teacher, Label, Gradient>;
  using call_type = kernel::merged_call<batch_type, Value, Index>;
  if (batch.rows == 0) return;
  kd::detail::require_merged<Loss>(name, batch, teacher);
  detail::require_batch<kd::detail::student_alone>(name, batch);
  detail::require_pointer(name, "loss", loss);
  detail::require_pointer(name, "sums", sums);
  detail::require_scratch(name, scratch);
  const std::size_t rows = batch.rows, classes = teacher.k + 1;
  std::byte* const merged_scratch = scratch + (logit_loss_scratch<Loss>(rows) + 7) / 8 * 8;
  auto* const merged_sums = reinterpret_cast<formula::loss_sums*>(merged_scratch);
  auto* const merged = reinterpret_cast<kernel::merged_row*>(merged_sums + 1);
  auto* const student = reinterpret_cast<float*>(merged + rows);
  const bool wants_gradient = batch.gradient.data != nullptr;
  const call_type call = {.batch = batch,
                          .teacher = teacher,
                          .student = student,
                          .teachers = student + rows * classes,
                          .gradient = wants_gradient ? student + 2 * rows * classes : nullptr,
                          .labels = reinterpret_cast<std::int32_t*>(student + 3 * rows * classes),
                          .rows = merged,
                          .sums = merged_sums};
  const formula::logit_batch<float> of_merged = {.rows = rows,
                                                 .classes = classes,
                                                 .student = {call.student},
                                                 .teacher = {call.teachers},
                                                 .labels = {call.labels},
                                                 .row_weights = batch.row_weights,
                                                 .divide_by = batch.divide_by,
                                                 .upstream = batch.upstream,
                                                 .upstream_per_row = batch.upstream_per_row,
                                                 .gradient = {call.gradient},
                                                 .row_values = batch.row_values};
  auto* const counted = reinterpret_cast<kernel::counted_rows*>(scratch);
  auto* const terms = reinterpret_cast<kernel::loss_row<Loss>*>(scratch + sizeof(kernel::counted_rows));
  const detail::loss_launches<Loss, formula::logit_batch<float>> losses{s,       of_merged, loss,
                                                                        counted, terms,     merged_sums};

  constexpr unsigned threads = kernel::merge_threads;
  launch(s, "merge_rows", blocks_for(rows, 1), threads, 0, kernel::merge_rows<Loss, batch_type, Value, Index>, call,
         loss);
  losses.count();
  losses.rows_in_registers();
  launch(s, "set_hits", blocks_for(rows, threads), threads, 0, kernel::set_hits<Loss>, rows,
         static_cast<const kernel::merged_row*>(merged), terms);
  losses.fold();
  launch(s, "take_sums", 1, threads, 0, kernel::take_sums<batch_type, Value, Index>, call, sums);
  if (wants_gradient)
    launch(s, "share_rows", blocks_for(rows, 1), threads, 0, kernel::share_rows<Loss, batch_type, Value, Index>, call,
           loss, static_cast<const kernel::loss_row<Loss>*>(terms));
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
