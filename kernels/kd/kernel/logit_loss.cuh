/// The fused logit losses: from the raw logits of student and teacher to the terms and the student's gradient, for
/// every loss that kd/formula can say.
///
///   loss = w_1 L_1 + w_2 L_2 + ..., mean over the rows;  d_z = d loss / d z
/// Layout: student, teacher, gradient [rows][classes], float or bfloat16, arithmetic in float, sums in double; labels
/// [rows]; the loss, a formula::logit_loss, lies in device memory. The gradient may be null, or the student's array.
///
/// | kernel                        | classes | read, written per class (float) | launch                         |
/// |-------------------------------|---------|---------------------------------|--------------------------------|
/// | logit_loss_in_registers, Fold | 1..32   | 8, 4 bytes                      | 1 block, 32..1,024 threads     |
/// | logit_loss_in_registers       | 1..1024 | 8, 4 bytes                      | blocks of 32 or 128 threads    |
/// | logit_loss_by_block           | any     | twice 8, 4 bytes                | a block of 128 (to 8,192       |
/// |                               |         |                                 | classes) or 512 for each row   |
///
/// Losses that need no teacher read half of that; by block, terms with sums over the probabilities read once more. In
/// registers a row has 4 threads up to 16 classes, 8 up to 32, beyond a warp; where Fold is false, terms [rows] go to
/// memory, and fold_loss_rows (loss_sums.cuh) follows. Static shared memory with two terms: Fold 1.3 KB, by block 0.4
/// KB with 128 threads and 1.7 with 512.
///
/// Limits: rows and classes below 2^31; rows at fault are not written. Checked in tests/cuda/logit_loss_test.cpp
/// against float64 and against tests/support/loss_edge_rows.hpp.
#pragma once

#include "kd/kernel/loss_block.cuh"
#include "kd/kernel/loss_registers.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// @param counted of count_rows, not read unless the batch divides by it
template <unsigned Lanes, unsigned Values, bool Fold, class Loss, class Batch>
KD_KERNEL void __launch_bounds__(register_rows_threads<Values, Fold, Loss, Batch>,
                                 register_rows_blocks<Values, Fold, Loss, Batch>)
    logit_loss_in_registers(const Batch batch, const wide_arrays wide, const Loss* loss, const counted_rows* counted,
                            loss_row<Loss>* terms, formula::loss_sums* sums) {
  loss_of_register_rows<Lanes, Values, Fold>(batch, wide, loss, counted, terms, sums);
}

template <unsigned Threads, class Loss, class Batch>
KD_KERNEL void __launch_bounds__(Threads, block_row_blocks<Threads, Loss, Batch>)
    logit_loss_by_block(const Batch batch, const Loss* loss, const counted_rows* counted, loss_row<Loss>* terms) {
  loss_of_block_rows<Threads>(batch, loss, counted, terms);
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
