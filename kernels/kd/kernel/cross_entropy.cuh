/// Cross entropy with integer labels, fused: from raw logits to the terms and the gradient.
///
///   loss = -log softmax(z)_y, mean over the rows;  d_z = (softmax(z) - onehot(y)) / rows
/// The distillation loss without a teacher: layout, launches, limits and faults as in distillation.cuh, with 4 bytes
/// read and 4 written per class in float (by_block: twice 4 read). Checked in tests/cuda/cross_entropy_test.cpp.
#pragma once

#include "kd/kernel/loss_block.cuh"
#include "kd/kernel/loss_registers.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// @param wide classes and all addresses allow accesses of four logits
template <unsigned Lanes, unsigned Values, bool Fold, class Logit>
KD_KERNEL void __launch_bounds__(register_rows_threads<Fold>, register_rows_blocks<Values, Fold, Logit>)
    cross_entropy_in_registers(std::size_t rows, std::size_t classes, bool wide, const Logit* student,
                               const std::int32_t* labels, Logit* d_student, loss_row* terms, loss_sums* sums) {
  loss_of_register_rows<false, Lanes, Values, Fold, Logit>(rows, classes, wide, student, nullptr, labels, nullptr,
                                                           d_student, terms, sums);
}

template <class Logit>
KD_KERNEL void __launch_bounds__(block_row_threads, 1)
    cross_entropy_by_block(std::size_t rows, std::size_t classes, const Logit* student, const std::int32_t* labels,
                           Logit* d_student, loss_row* terms) {
  loss_of_block_rows<false, Logit>(rows, classes, student, nullptr, labels, nullptr, d_student, terms);
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
