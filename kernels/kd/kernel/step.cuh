/// The beginning of one training step inside a recorded graph: which step this is, and which samples it takes.
///
///   current = table[position];  position += 1
///   batch_indices[i] = order[current.first + i];  batch_labels[i] = labels[batch_indices[i]]
///   teacher_rows[i][c] = teacher[batch_indices[i]][c], where there is a table of the teacher's logits
/// Layout: teacher [sample][classes], teacher_rows [count][classes]. Bytes: 16 per sample, 8 per logit.
/// Launch: one block of 1,024 threads, so that nothing outside it can read `position` after it has moved on; no shared
/// memory. Limits: order holds first + count samples; large teacher rows are gather_rows' work, in a launch of its own.
/// Checked in tests/cuda/step_test.cpp.
#pragma once

#include "kd/kernel/abi.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// The layout of kd::step_scalars.
struct alignas(16) step_scalars {
  std::uint32_t step, epoch, first, reserved;
  alignas(16) std::byte loss[64];
  unsigned char optimiser[32];
};
static_assert(sizeof(step_scalars) == 112, "kd::kernel::step_scalars: the layout of kd/core/step_scalars.hpp");

template <unsigned Threads>
KD_KERNEL void __launch_bounds__(Threads)
    begin_step(const step_scalars* table, std::uint32_t* position, step_scalars* current, const std::uint32_t* order,
               const std::int32_t* labels, const float* teacher, std::size_t classes, std::size_t count,
               std::uint32_t* batch_indices, std::int32_t* batch_labels, float* teacher_rows) {
  const std::uint32_t now = *position;
  const std::size_t first = table[now].first;
  for (std::size_t i = threadIdx.x; i < count; i += Threads) {
    const std::uint32_t sample = order[first + i];
    batch_indices[i] = sample;
    batch_labels[i] = labels[sample];
  }
  if (teacher != nullptr) {
    const unsigned lane = threadIdx.x % warp_size;
    for (std::size_t i = threadIdx.x / warp_size; i < count; i += Threads / warp_size) {
      const float* const row = teacher + order[first + i] * classes;
      for (std::size_t c = lane; c < classes; c += warp_size) teacher_rows[i * classes + c] = row[c];
    }
  }
  __syncthreads();  // every thread has read the position
  // 16 bytes a thread: one thread would copy the whole through its stack.
  if (threadIdx.x < sizeof(step_scalars) / 16)
    __builtin_memcpy(reinterpret_cast<std::byte*>(current) + 16 * threadIdx.x,
                     reinterpret_cast<const std::byte*>(table + now) + 16 * threadIdx.x, 16);
  if (threadIdx.x == 0) *position = now + 1;
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
