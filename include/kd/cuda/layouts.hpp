/// What one side of a launch writes and the other reads under another name: kernels include nothing of include/, so
/// that such things are declared twice. Here both declarations are in sight, and every member and number is compared.
///
/// Arguments of kernels are not among them: the host fills the kernel's own structs, by the names of their members.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kd/core/random.hpp"
#include "kd/core/step_scalars.hpp"
#include "kd/kernel/random.cuh"
#include "kd/kernel/step.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

#define KD_SAME_MEMBER(one, other, member)                                          \
  static_assert(offsetof(one, member) == offsetof(other, member) &&                 \
                    std::is_same_v<decltype(one::member), decltype(other::member)>, \
                "kd::cuda: " #one "::" #member " and " #other "::" #member " must have the same place and type")
#define KD_SAME_SIZE(one, other)                                                \
  static_assert(sizeof(one) == sizeof(other) && alignof(one) == alignof(other), \
                "kd::cuda: " #one " and " #other " must have the same size and alignment")
#define KD_SAME_NUMBER(one, other, enumerator)                                                                \
  static_assert(static_cast<std::uint32_t>(one::enumerator) == static_cast<std::uint32_t>(other::enumerator), \
                "kd::cuda: " #one "::" #enumerator " and " #other "::" #enumerator " must be the same number")

// ---- the numbers of a step: written by the host, read by begin_step, the losses and update
KD_SAME_SIZE(kd::step_scalars, kernel::step_scalars);
KD_SAME_MEMBER(kd::step_scalars, kernel::step_scalars, step);
KD_SAME_MEMBER(kd::step_scalars, kernel::step_scalars, epoch);
KD_SAME_MEMBER(kd::step_scalars, kernel::step_scalars, first);
KD_SAME_MEMBER(kd::step_scalars, kernel::step_scalars, reserved);
KD_SAME_MEMBER(kd::step_scalars, kernel::step_scalars, loss);
KD_SAME_MEMBER(kd::step_scalars, kernel::step_scalars, optimiser);

// ---- random numbers: both sides draw the same
KD_SAME_SIZE(kd::random_words, kernel::random_words);
KD_SAME_NUMBER(kd::random_stream, kernel::random_stream, initial_weights);
KD_SAME_NUMBER(kd::random_stream, kernel::random_stream, shuffle);
KD_SAME_NUMBER(kd::random_stream, kernel::random_stream, dropout);
KD_SAME_NUMBER(kd::random_stream, kernel::random_stream, augmentation);
KD_SAME_NUMBER(kd::random_stream, kernel::random_stream, synthetic_data);

#undef KD_SAME_NUMBER
#undef KD_SAME_SIZE
#undef KD_SAME_MEMBER

/// The same memory as kernels call it.
inline kernel::step_scalars* as_kernel(step_scalars* step) { return reinterpret_cast<kernel::step_scalars*>(step); }
inline const kernel::step_scalars* as_kernel(const step_scalars* steps) {
  return reinterpret_cast<const kernel::step_scalars*>(steps);
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
