/// DIST's relation between samples on the GPU: see kd/loss/dist_columns.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kd/core/error.hpp"
#include "kd/cuda/buffer.hpp"
#include "kd/cuda/launch.hpp"
#include "kd/cuda/logit_loss.hpp"
#include "kd/cuda/stream.hpp"
#include "kd/formula/logit_batch.hpp"
#include "kd/kernel/dist_columns.cuh"
#include "kd/loss/dist_columns.hpp"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

using kernel::columns_result;

/// Bytes of scratch, aligned to 8.
constexpr std::size_t dist_columns_scratch(std::size_t rows, std::size_t classes) {
  return rows * 2 * sizeof(kernel::columns_call::softened) + classes * (sizeof(double) + 4 * sizeof(float));
}

/// As kd::cpu::dist_columns_forward_backward, asynchronously, recordable. Reads each logit ten times in the worst case,
/// of the caches mostly.
/// @param batch in device memory
/// @param result in device memory: the value, or the first row at fault, in which case no gradient is written
/// Throws argument_error for options, arrays and fields of the batch that do not fit, null pointers, misaligned
/// scratch, and rows or classes beyond 2^31.
KD_HIDDEN inline void dist_columns_forward_backward(stream_view s, const formula::logit_batch<float>& batch,
                                                    const dist_columns& loss, std::byte* scratch,
                                                    columns_result* result) {
  loss.validate();
  if (batch.rows == 0) return;
  kd::detail::require_columns(batch);
  detail::require_batch<dist_columns>(loss.name, batch);
  detail::require_pointer(loss.name, "result", result);
  detail::require_scratch(loss.name, scratch);
  const std::size_t rows = batch.rows, classes = batch.classes;
  const float T = loss.temperature;
  const double factor = loss.weight * (loss.times_temperature_squared ? double{T} * T : 1.0);
  auto* const values = reinterpret_cast<double*>(scratch);
  auto* const students = reinterpret_cast<kernel::columns_call::softened*>(values + classes);
  auto* const floats = reinterpret_cast<float*>(students + 2 * rows);
  const kernel::columns_call call = {
      .batch = batch,
      .temperature = T,
      .teacher_temperature = loss.teacher_temperature == 0 ? T : loss.teacher_temperature,
      .value_factor = factor,
      .gradient_factor = static_cast<float>(factor / (double{T} * double(classes))),
      .students = students,
      .teachers = students + rows,
      .student_mean = floats,
      .teacher_mean = floats + classes,
      .slope = floats + 2 * classes,
      .steepness = floats + 3 * classes,
      .values = values,
      .result = result};
  constexpr unsigned threads = kernel::column_threads;
  launch(s, "soften_rows", blocks_for(rows, 1), threads, 0, kernel::soften_rows<threads>, call);
  launch(s, "relate_columns", blocks_for(classes, kernel::column_strip), threads, 0, kernel::relate_columns<threads>,
         call);
  launch(s, "sum_columns", 1, threads, 0, kernel::sum_columns<threads>, call);
  if (batch.gradient.data)
    launch(s, "columns_backward", blocks_for(rows, 1), threads, 0, kernel::columns_backward<threads>, call);
}

/// The value, when the stream is done. Throws non_finite_error, which names the row.
KD_HIDDEN inline double read_columns(stream_view s, const columns_result* result) {
  columns_result read;
  download(s, result, 1, &read);
  if (read.fault_row != kernel::no_class)
    throw non_finite_error(text(dist_columns::name, ": ", read.fault_in_teacher ? "teacher" : "student",
                                " logits of row ", read.fault_row,
                                " have a NaN, a plus infinity, or no class that is not masked; nothing was written"));
  return read.value;
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
