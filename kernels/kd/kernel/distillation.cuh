/// The fused distillation loss: from the raw logits of student and teacher to the terms and the student's gradient.
///
///   loss = ce_weight CE(z, y) + kd_weight T^2 KL(softmax(t/T) || softmax(z/T)), mean over the rows
///   d_z = [ce_weight (softmax(z) - onehot(y)) + kd_weight T (softmax(z/T) - softmax(t/T))] / rows
/// Hinton, Vinyals, Dean: arXiv:1503.02531, section 2; loss_row.cuh has the form in which it is computed.
/// Layout: student, teacher, d_student [rows][classes], float or bfloat16, arithmetic in float, sums in double; labels
/// [rows]; options {temperature, kd_weight, ce_weight} in device memory. d_student may be null, or `student`.
///
/// | kernel                          | classes | read, written per class (float) | launch                         |
/// |---------------------------------|---------|---------------------------------|--------------------------------|
/// | distillation_in_registers, Fold | 1..32   | 8, 4 bytes                      | 1 block, 32..1,024 threads     |
/// | distillation_in_registers       | 1..1024 | 8, 4 bytes                      | blocks of 32 or 128 threads    |
/// | distillation_by_block           | any     | twice 8, 4 bytes                | a block of 512 for each row    |
///
/// In registers a row has 8 threads up to 32 classes, beyond a warp; where Fold is false, terms [rows] go to memory,
/// and fold_loss_rows (loss_sums.cuh) follows. Static shared memory: Fold 1.2 KB, by block 0.6 KB.
///
/// Limits: rows and classes below 2^31; rows at fault are not written. Checked in tests/cuda/distillation_test.cpp
/// against float64 and against tests/support/loss_edge_rows.hpp.
#pragma once

#include "kd/kernel/loss_block.cuh"
#include "kd/kernel/loss_registers.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// @param wide classes and all addresses allow accesses of four logits
template <unsigned Lanes, unsigned Values, bool Fold, class Logit>
KD_KERNEL void __launch_bounds__(register_rows_threads<Fold>, register_rows_blocks<Values, Fold, Logit>)
    distillation_in_registers(std::size_t rows, std::size_t classes, bool wide, const Logit* student,
                              const Logit* teacher, const std::int32_t* labels, const float* options, Logit* d_student,
                              loss_row* terms, loss_sums* sums) {
  loss_of_register_rows<true, Lanes, Values, Fold>(rows, classes, wide, student, teacher, labels, options, d_student,
                                                   terms, sums);
}

template <class Logit>
KD_KERNEL void __launch_bounds__(block_row_threads, 1)
    distillation_by_block(std::size_t rows, std::size_t classes, const Logit* student, const Logit* teacher,
                          const std::int32_t* labels, const float* options, Logit* d_student, loss_row* terms) {
  loss_of_block_rows<true>(rows, classes, student, teacher, labels, options, d_student, terms);
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
