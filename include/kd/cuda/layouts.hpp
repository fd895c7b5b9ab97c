/// What one side of a launch writes and the other reads under another name: kernels include nothing of include/, so
/// that such things are declared twice. Here both declarations are in sight, and every member and number is compared.
///
/// Arguments of kernels are not among them: the host fills the kernel's own structs, by the names of their members.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kd/core/random.hpp"
#include "kd/core/step_scalars.hpp"
#include "kd/kernel/loss_sums.cuh"
#include "kd/kernel/optim.cuh"
#include "kd/kernel/random.cuh"
#include "kd/kernel/step.cuh"
#include "kd/loss/distillation.hpp"
#include "kd/loss/loss_meter.hpp"
#include "kd/optim/factors.hpp"

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

// ---- the sums of a loss: written by fold_loss_rows, read by the host
KD_SAME_SIZE(kd::loss_meter, kernel::loss_sums);
KD_SAME_MEMBER(kd::loss_meter, kernel::loss_sums, total);
KD_SAME_MEMBER(kd::loss_meter, kernel::loss_sums, cross_entropy);
KD_SAME_MEMBER(kd::loss_meter, kernel::loss_sums, kd);
KD_SAME_MEMBER(kd::loss_meter, kernel::loss_sums, soft_cross_entropy);
KD_SAME_MEMBER(kd::loss_meter, kernel::loss_sums, correct);
KD_SAME_MEMBER(kd::loss_meter, kernel::loss_sums, agrees);
KD_SAME_MEMBER(kd::loss_meter, kernel::loss_sums, rows);
KD_SAME_MEMBER(kd::loss_meter, kernel::loss_sums, steps);
KD_SAME_MEMBER(kd::loss_meter, kernel::loss_sums, fault_kind);
KD_SAME_MEMBER(kd::loss_meter, kernel::loss_sums, reserved);
KD_SAME_MEMBER(kd::loss_meter, kernel::loss_sums, fault_row);
KD_SAME_MEMBER(kd::loss_meter, kernel::loss_sums, fault_class);
KD_SAME_MEMBER(kd::loss_meter, kernel::loss_sums, fault_step);

KD_SAME_NUMBER(kd::loss_fault_kind, kernel::loss_fault, none);
KD_SAME_NUMBER(kd::loss_fault_kind, kernel::loss_fault, student_nan);
KD_SAME_NUMBER(kd::loss_fault_kind, kernel::loss_fault, student_infinite);
KD_SAME_NUMBER(kd::loss_fault_kind, kernel::loss_fault, student_all_masked);
KD_SAME_NUMBER(kd::loss_fault_kind, kernel::loss_fault, teacher_nan);
KD_SAME_NUMBER(kd::loss_fault_kind, kernel::loss_fault, teacher_infinite);
KD_SAME_NUMBER(kd::loss_fault_kind, kernel::loss_fault, teacher_all_masked);
KD_SAME_NUMBER(kd::loss_fault_kind, kernel::loss_fault, label_masked);
KD_SAME_NUMBER(kd::loss_fault_kind, kernel::loss_fault, class_masked_in_student_only);
KD_SAME_NUMBER(kd::loss_fault_kind, kernel::loss_fault, overflow);
KD_SAME_NUMBER(kd::loss_fault_kind, kernel::loss_fault, label_out_of_range);

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

namespace detail {

/// Whether rows[places[i]] is i + 1 for every i: the row was packed from 1, 2, 3 ... in the order of `places`.
template <std::size_t Floats, std::size_t Places>
constexpr bool lie_at(const std::array<float, Floats>& row, const unsigned (&places)[Places]) {
  for (std::size_t i = 0; i < Places; ++i)
    if (places[i] >= Floats || row[places[i]] != static_cast<float>(i + 1)) return false;
  return true;
}

}  // namespace detail

// ---- the rows of step_scalars, member by member as the kernels read them
static_assert(detail::lie_at(kd::loss_numbers(kd::distillation{.temperature = 1, .kd_weight = 2, .ce_weight = 3}),
                             {kernel::loss_option::temperature, kernel::loss_option::kd_weight,
                              kernel::loss_option::ce_weight}),
              "kd::cuda: kernel::loss_option must number the options as kd::loss_numbers does");
static_assert(
    detail::lie_at(optim::pack_factors(optim::adam_factors{
                       .l2 = 1, .keep = 2, .rate1 = 3, .beta2 = 4, .rate2 = 5, .step = 6, .root = 7, .epsilon = 8}),
                   {kernel::adam_factor::l2, kernel::adam_factor::keep, kernel::adam_factor::rate1,
                    kernel::adam_factor::beta2, kernel::adam_factor::rate2, kernel::adam_factor::step,
                    kernel::adam_factor::root, kernel::adam_factor::epsilon}),
    "kd::cuda: kernel::adam_factor must number the factors as kd::optim::pack_factors does");
static_assert(
    detail::lie_at(
        optim::pack_factors(optim::sgd_factors{
            .l2 = 2, .carry = 3, .take = 4, .own = 5, .through = 6, .rate = 7, .buffered = true}),  // packed as 1
        {kernel::sgd_factor::buffered, kernel::sgd_factor::l2, kernel::sgd_factor::carry, kernel::sgd_factor::take,
         kernel::sgd_factor::own, kernel::sgd_factor::through, kernel::sgd_factor::rate}),
    "kd::cuda: kernel::sgd_factor must number the factors as kd::optim::pack_factors does");

/// The same memory as kernels call it.
inline kernel::loss_sums* as_kernel(loss_meter* meter) { return reinterpret_cast<kernel::loss_sums*>(meter); }
inline kernel::step_scalars* as_kernel(step_scalars* step) { return reinterpret_cast<kernel::step_scalars*>(step); }
inline const kernel::step_scalars* as_kernel(const step_scalars* steps) {
  return reinterpret_cast<const kernel::step_scalars*>(steps);
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
