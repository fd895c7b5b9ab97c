/// The beginning of one training step on the GPU: which step this is, and which samples it takes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kd/cuda/rows.hpp"
#include "kd/kernel/step.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// current = table[*position], *position += 1; then the batch's indices, labels and rows of the teacher's logits. All
/// pointers lead to device memory. One launch, or two where the teacher's rows are large.
/// @param table of step scalars, one entry per step; holds entry *position
/// @param order samples in this epoch's order; holds table[*position].first + count of them
/// @param labels [sample]
/// @param teacher logits [sample][classes], or null for none
/// @param batch_indices, batch_labels [count]
/// @param teacher_rows [count][classes], not written without a teacher
KD_HIDDEN inline void begin_step(const stream& s, const kernel::step_scalars* table, std::uint32_t* position,
                                 kernel::step_scalars* current, const std::uint32_t* order, const std::int32_t* labels,
                                 const float* teacher, std::size_t classes, std::size_t count,
                                 std::uint32_t* batch_indices, std::int32_t* batch_labels, float* teacher_rows) {
  // What one block moves in about the time of a launch: 16 floats for each of its threads.
  constexpr std::size_t few_logits = 16384;
  constexpr unsigned threads = 1024;
  const bool apart = teacher != nullptr && count * classes > few_logits;
  launch(s, "begin_step", 1, threads, 0, kernel::begin_step<threads>, table, position, current, order, labels,
         apart ? nullptr : teacher, classes, count, batch_indices, batch_labels, teacher_rows);
  if (apart) gather_rows(s, teacher, classes, batch_indices, count, teacher_rows);
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
