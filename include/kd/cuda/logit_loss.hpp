/// The fused logit losses of the CUDA device: any formula::logit_loss.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kd/core/error.hpp"
#include "kd/cuda/buffer.hpp"
#include "kd/cuda/launch.hpp"
#include "kd/cuda/stream.hpp"
#include "kd/formula/logit_batch.hpp"
#include "kd/formula/loss_sums.hpp"
#include "kd/kernel/logit_loss.cuh"
#include "kd/loss/formula_of.hpp"
#include "kd/loss/loss_meter.hpp"
#include "kd/loss/require_arrays.hpp"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// The kernels of a loss. `automatic` takes the first that is meant for the shape; the others are for tests and
/// measurements.
enum class loss_variant {
  automatic,
  one_block,      // up to 32 classes: rows and sums in one launch of one block
  registers,      // up to 1,024 classes: a warp, or a quarter of one, for each row, and a second launch for the sums
  block_per_row,  // any: a block for each row, and a second launch for the sums
};

/// Bytes of scratch, aligned to 8, that a loss takes: what formula() gives of one.
template <class Loss>
constexpr std::size_t logit_loss_scratch(std::size_t rows) {
  return sizeof(kernel::counted_rows) + rows * sizeof(kernel::loss_row<Loss>) + sizeof(Loss);
}
/// Bytes that are enough for every loss.
constexpr std::size_t logit_loss_scratch(std::size_t rows, std::size_t) {
  return sizeof(kernel::counted_rows) + rows * (formula::most_loss_values + 1) * sizeof(double) + 128;
}

namespace detail {

/// Rows that one block takes with the sums: four sweeps of 128. Beyond, two launches win by their many blocks (to be
/// measured: 1.3 us for the second launch against about 1 us for each sweep).
inline constexpr std::size_t one_block_rows = 512;
inline constexpr std::size_t one_block_classes = 32;
inline constexpr std::size_t register_classes = 1024;

inline loss_variant loss_variant_for(std::size_t rows, std::size_t classes) {
  if (classes <= one_block_classes && rows <= one_block_rows) return loss_variant::one_block;
  return classes <= register_classes ? loss_variant::registers : loss_variant::block_per_row;
}
/// Up to how many classes a variant goes.
inline std::size_t most_classes_of(const char* name, loss_variant variant) {
  switch (variant) {
    case loss_variant::one_block:
      return one_block_classes;
    case loss_variant::registers:
      return register_classes;
    case loss_variant::block_per_row:
      return 0x7fffffff;
    case loss_variant::automatic:  // was replaced before
      break;
  }
  reject_argument(name, "the variant must be one of loss_variant", static_cast<int>(variant),
                  "use loss_variant::automatic");
}

/// Whether rows of an array can be accessed four at a time.
template <class T>
bool rows_allow_four(const formula::row_array<T>& rows, std::size_t width) {
  const std::size_t stride = rows.row_stride == 0 ? width : rows.row_stride;
  return stride % 4 == 0 && rows.group_stride % 4 == 0 && width % 4 == 0 &&
         reinterpret_cast<std::uintptr_t>(rows.data) % (4 * sizeof(T)) == 0;
}
/// How many classes the teacher's rows have.
template <class Batch>
std::size_t teacher_classes_of(const Batch& batch) {
  if constexpr (requires { batch.teacher_classes; })
    if (batch.teacher_classes != 0) return batch.teacher_classes;
  return batch.classes;
}

template <class Loss, class Batch>
struct KD_HIDDEN loss_launches {
  stream_view s;
  const Batch& batch;
  const Loss* loss;
  kernel::counted_rows* counted;
  kernel::loss_row<Loss>* terms;
  formula::loss_sums* sums;

  template <unsigned Lanes, unsigned Values, bool Fold>
  void in_registers(unsigned grid, unsigned block) const {
    const kernel::wide_arrays wide = {.student = rows_allow_four(batch.student, batch.classes),
                                      .teacher = rows_allow_four(batch.teacher, teacher_classes_of(batch)),
                                      .gradient = rows_allow_four(batch.gradient, batch.classes)};
    launch(s, "logit_loss_in_registers", grid, block, 0,
           kernel::logit_loss_in_registers<Lanes, Values, Fold, Loss, Batch>, batch, wide, loss, counted, terms, sums);
  }
  void run(loss_variant variant) const {
    count();
    if (variant == loss_variant::one_block) {
      // Whole warps, with eight rows or four in each.
      const std::size_t in_warp = batch.classes <= 16 ? 8 : 4;
      const std::size_t threads = (batch.rows + in_warp - 1) / in_warp * kernel::warp_size;
      const auto at_most = [&](std::size_t most) { return static_cast<unsigned>(std::min(threads, most)); };
      if (batch.classes <= 16)
        return in_registers<4, 4, true>(1, at_most(kernel::register_rows_threads<4, true, Loss, Batch>));
      return in_registers<8, 4, true>(1, at_most(kernel::register_rows_threads<4, true, Loss, Batch>));
    }
    if (variant == loss_variant::registers)
      rows_in_registers();
    else if (batch.classes <= kernel::few_threads_classes)
      by_block<kernel::few_row_threads>();
    else
      by_block<kernel::many_row_threads>();
    fold();
  }
  void count() const {
    using enum formula::divisor;
    if (batch.divide_by == valid_rows || batch.divide_by == weights)
      launch(s, "count_rows", 1, kernel::fold_loss_threads, 0, kernel::count_rows<Batch>, batch, counted);
  }
  void fold() const {
    launch(s, "fold_loss_rows", 1, kernel::fold_loss_threads, 0, kernel::fold_loss_rows<Loss, Batch>, batch, loss,
           counted, terms, sums);
  }
  template <unsigned Threads>
  void by_block() const {
    launch(s, "logit_loss_by_block", blocks_for(batch.rows, 1), Threads, 0,
           kernel::logit_loss_by_block<Threads, Loss, Batch>, batch, loss, counted, terms);
  }
  void rows_in_registers() const {
    // Small batches go as single warps, so that they spread over the multiprocessors (132 on an H100).
    constexpr unsigned most_threads = kernel::register_rows_threads<2, false, Loss, Batch>;
    const std::size_t rows = batch.rows, classes = batch.classes;
    const std::size_t warps = blocks_for(rows, classes <= 16 ? 8 : classes <= 32 ? 4 : 1);
    const unsigned threads = warps <= 1024 ? kernel::warp_size : most_threads;
    const unsigned by_quarter = blocks_for(rows, threads / 8), by_warp = blocks_for(rows, threads / kernel::warp_size);
    if (classes <= 16) return in_registers<4, 4, false>(blocks_for(rows, threads / 4), threads);
    if (classes <= 32) return in_registers<8, 4, false>(by_quarter, threads);
    if (classes <= 64) return in_registers<32, 2, false>(by_warp, threads);
    if (classes <= 128) return in_registers<32, 4, false>(by_warp, threads);
    if (classes <= 256) return in_registers<32, 8, false>(by_warp, threads);
    if (classes <= 512) return in_registers<32, 16, false>(by_warp, threads);
    return in_registers<32, 32, false>(by_warp, threads);
  }
};

inline void require_pointer(const char* name, const char* what, const void* pointer) {
  if (pointer == nullptr)
    reject_argument(name, text(what, " must not be null"), "a null pointer", "pass device memory");
}

inline void require_scratch(const char* name, const std::byte* scratch) {
  require_pointer(name, "scratch", scratch);
  const auto past = reinterpret_cast<std::uintptr_t>(scratch) % alignof(double);
  if (past != 0)
    reject_argument(name, "scratch must be aligned to 8 bytes", text("an address ", past, " beyond"),
                    "pass the start of a buffer");
}

/// Throws argument_error unless the arrays that the loss needs are there, and have sizes that kernels can count.
template <class Loss, class Batch>
void require_batch(const char* name, const Batch& batch) {
  constexpr std::size_t limit = 0x7fffffff;
  if (batch.classes == 0 || batch.classes > limit)
    reject_argument(name, text("classes must lie in [1,", limit, "]"), batch.classes, "pass the logits' width");
  if (batch.rows > limit)
    reject_argument(name, text("rows must lie in [0,", limit, "]"), batch.rows, "use a smaller batch");
  if constexpr (requires { batch.group_rows; }) {
    if (batch.teacher_classes > limit)
      reject_argument(name, text("teacher_classes must lie in [0,", limit, "]"), batch.teacher_classes,
                      "0 is as many as the student's");
    if (batch.group_rows > limit)
      reject_argument(name, text("group_rows must lie in [0,", limit, "]"), batch.group_rows, "0 is one group");
  }
  kd::detail::require_arrays<Loss>(name, batch);
}

}  // namespace detail

/// Adds the loss of a batch to `sums`, and writes its gradient or adds it to what is there: asynchronous, without a
/// wait for the host, and recordable. Semantics of masks, ties, equal rows, ignored rows, divisors and faults as
/// kd::cpu::logit_loss_forward_backward; a label out of range, or a row's weight that is negative or not finite, is
/// reported as a fault. A row's terms and its gradient before the division do not depend on the batch or on addresses.
///
/// @param batch a formula::logit_batch in device memory, or a kernel::dense_batch, which has less and takes less:
///   student, teacher and gradient float, kernel::bfloat16 or kernel::float16 each, arithmetic in float, sums in
///   double; labels std::int32_t or std::int64_t. Rows at fault have no gradient written.
/// @param loss in device memory, read when the kernels run; kd::distillation::validate, for example, has accepted it
/// @param scratch logit_loss_scratch bytes, aligned to 8
/// @param sums on the device; zeros before the first step. A batch of no rows launches nothing and counts no step. As
///   many times the batch's terms are added as it has rows that are not ignored.
/// Throws argument_error for null pointers, misaligned scratch, rows or arrays that overlap, and rows or classes beyond
/// 2^31.
template <class Loss, class Batch>
KD_HIDDEN void logit_loss_forward_backward(stream_view s, const Batch& batch, const Loss* loss, std::byte* scratch,
                                           formula::loss_sums* sums, loss_variant variant = loss_variant::automatic) {
  static_assert(Loss::values <= formula::most_loss_values,
                "kd::cuda: a loss reports at most 8 values: join fewer terms");
  if (batch.rows == 0) return;
  constexpr const char* name = "kd::cuda::logit_loss_forward_backward";
  detail::require_batch<Loss>(name, batch);
  detail::require_pointer(name, "loss", loss);
  detail::require_pointer(name, "sums", sums);
  detail::require_scratch(name, scratch);
  if (variant == loss_variant::automatic) variant = detail::loss_variant_for(batch.rows, batch.classes);
  const std::size_t most = detail::most_classes_of(name, variant);
  if (batch.classes > most)
    reject_argument(name, text("this variant takes at most ", most, " classes"), batch.classes,
                    "use loss_variant::automatic");
  auto* const counted = reinterpret_cast<kernel::counted_rows*>(scratch);
  auto* const terms = reinterpret_cast<kernel::loss_row<Loss>*>(scratch + sizeof(kernel::counted_rows));
  detail::loss_launches<Loss, Batch>{s, batch, loss, counted, terms, sums}.run(variant);
}

/// The same with a loss as people set it, kd::distillation for example: its options come with the launch, and a
/// recorded one keeps them. Throws argument_error for options that its validate() does not allow, too.
/// @param scratch logit_loss_scratch<formula_of<Loss>>(batch.rows) bytes, aligned to 8
template <class Loss, class Batch>
KD_HIDDEN void logit_loss_forward_backward(stream_view s, const Batch& batch, const Loss& loss, std::byte* scratch,
                                           formula::loss_sums* sums) requires requires {
  loss.formula();
}
{
  using formula_type = formula_of<Loss>;
  loss.validate();
  if (batch.rows == 0) return;
  detail::require_scratch("kd::cuda::logit_loss_forward_backward", scratch);
  auto* const place =
      reinterpret_cast<formula_type*>(scratch + logit_loss_scratch<formula_type>(batch.rows) - sizeof(formula_type));
  launch(s, "place_loss", 1, 1, 0, kernel::place_loss<formula_type>, loss.formula(), place);
  logit_loss_forward_backward(s, batch, static_cast<const formula_type*>(place), scratch, sums);
}

/// What a loss has left in the device's memory so far, sums and the first fault: waits for the stream.
inline loss_meter read_loss(stream_view s, const formula::loss_sums* sums) {
  loss_meter read;
  download(s, sums, 1, static_cast<formula::loss_sums*>(&read));
  return read;
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
