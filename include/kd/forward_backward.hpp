/// A loss on logits that are already there: own arrays in, terms and gradient out, without network or trainer.
#pragma once

#include <cstddef>
#include <vector>

#include "kd/core/abi.hpp"
#include "kd/cpu/device.hpp"
#include "kd/cpu/logit_loss.hpp"
#include "kd/formula/logit_batch.hpp"
#include "kd/loss/loss_terms.hpp"

namespace kd::inline KD_ABI {

using formula::bfloat16;
using formula::divisor;
using formula::float16;
using formula::logit_batch;

/// The terms of a loss, and its gradient by the student's logits where batch.gradient has an array:
///
///   kd::forward_backward(kd::distillation{.temperature = 4},
///                        kd::logit_batch{.rows = 128, .classes = 1000, .student = {z}, .teacher = {t},
///                                        .labels = {y}, .gradient = {dz}});
///
/// Arrays lie row by row, [rows,classes] and [rows]; logit_batch says what else they may be. Allocates scratch for the
/// call: with scratch of your own, that is reused, call cpu::logit_loss_forward_backward. The same bits for any number
/// of threads. Throws argument_error for options, sizes, labels or arrays that do not fit together, before anything is
/// written, and non_finite_error, which names row and class, where a row has no finite loss: the gradient is void then.
template <class Loss, class Student, class Teacher, class Label, class Gradient>
loss_terms forward_backward(const Loss& loss, const logit_batch<Student, Teacher, Label, Gradient>& batch,
                            const cpu::device& device = {}) {
  std::vector<std::byte> scratch(cpu::logit_loss_scratch(device.threads(), batch.rows, batch.classes));
  return require_finite(cpu::logit_loss_forward_backward(device.threads(), batch, loss, scratch), Loss::name);
}

}  // namespace kd::inline KD_ABI
