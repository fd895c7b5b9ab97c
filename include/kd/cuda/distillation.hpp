/// The fused distillation loss of the CUDA device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kd/cuda/fused_loss.hpp"
#include "kd/kernel/distillation.cuh"
#include "kd/loss/distillation.hpp"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

namespace detail {

template <class Logit>
struct KD_HIDDEN distillation_launches {
  const stream& s;
  std::size_t rows, classes;
  const Logit *student, *teacher;
  const std::int32_t* labels;
  const float* options;
  Logit* d_student;
  kernel::loss_row* terms;
  kernel::loss_sums* sums;

  template <unsigned Lanes, unsigned Values, bool Fold>
  void in_registers(unsigned grid, unsigned block) const {
    launch(s, "distillation_in_registers", grid, block, 0,
           kernel::distillation_in_registers<Lanes, Values, Fold, Logit>, rows, classes,
           rows_allow_four<Logit>(classes, student, teacher, d_student), student, teacher, labels, options, d_student,
           terms, sums);
  }
  void by_block(unsigned grid) const {
    launch(s, "distillation_by_block", grid, kernel::block_row_threads, 0, kernel::distillation_by_block<Logit>, rows,
           classes, student, teacher, labels, options, d_student, terms);
  }
  void fold() const {
    launch(s, "fold_loss_rows", 1, kernel::fold_loss_threads, 0, kernel::fold_loss_rows<true, Logit>, rows, classes,
           student, teacher, labels, options, terms, sums);
  }
};

}  // namespace detail

/// Adds ce_weight * CE + kd_weight * T^2 KL(softmax(t/T) || softmax(z/T)) of a batch to `sums`, and writes the gradient
/// of its mean over the rows. Semantics of masks, ties, equal rows and faults as
/// kd::cpu::distillation_forward_backward.
///
/// @param student, teacher [rows,classes], kernel::bfloat16 or float; arithmetic is float, sums are double
/// @param labels [rows]; one out of range is reported as a fault
/// @param options in device memory, read when the kernels run: temperature, kd_weight, ce_weight, which
///   kd::distillation::validate has accepted
/// @param d_student [rows,classes], overwritten; null for the value alone, or `student` itself. Rows at fault are not
///   written.
/// @param scratch distillation_scratch(rows, classes) bytes, aligned to 8
/// @param sums on the device; zeros before the first step. A batch of no rows launches nothing and counts no step.
/// Throws argument_error for null pointers, misaligned scratch, and rows or classes beyond 2^31.
template <class Logit>
KD_HIDDEN void distillation_forward_backward(const stream& s, std::size_t rows, std::size_t classes,
                                             const Logit* student, const Logit* teacher, const std::int32_t* labels,
                                             const float* options, Logit* d_student, std::byte* scratch,
                                             kernel::loss_sums* sums, loss_variant variant = loss_variant::automatic) {
  if (rows == 0) return;
  constexpr const char* name = "kd::cuda::distillation_forward_backward";
  detail::require_pointer(name, "student", student);
  detail::require_pointer(name, "teacher", teacher);
  detail::require_pointer(name, "labels", labels);
  detail::require_pointer(name, "options", options);
  detail::require_pointer(name, "sums", sums);
  detail::launch_loss(name,
                      detail::distillation_launches<Logit>{s, rows, classes, student, teacher, labels, options,
                                                           d_student, detail::loss_rows_in(name, scratch), sums},
                      rows, classes, variant);
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
