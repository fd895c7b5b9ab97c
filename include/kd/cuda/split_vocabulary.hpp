/// The losses on logits of a vocabulary that is split over GPUs: as kd/cpu/split_vocabulary.hpp, asynchronously.
///
/// Each part reads its classes; the parts exchange a record for each row (an all-gather), join them in the order of the
/// parts, and each writes the gradient of its own classes and adds the terms of the whole to its sums:
///
///   read_slice(s, batch, loss, slice, mine);                        // then gather `mine` of all parts, [part][row]
///   join_slices(s, loss, rows, parts, all, joined);
///   if (has_second_sweep) {                                         // Loss::probability_sums > 0
///     sum_slice(s, batch, loss, slice, joined, my_sums);            // then gather `my_sums`
///     join_sums<Loss>(s, rows, parts, all_sums, joined_sums);
///   }
///   finish_slice(s, batch, loss, slice, joined, joined_sums, scratch, sums);
///
/// `batch` has this part's classes, and the labels of all of them; `loss`, a formula::logit_loss, and all arrays lie in
/// device memory. One split gives the same bits wherever its parts are. Logits are read two times, three with a second
/// sweep. Nothing waits for the host, and all of it can be recorded.
#pragma once

#include <cstddef>

#include "kd/core/error.hpp"
#include "kd/cuda/launch.hpp"
#include "kd/cuda/logit_loss.hpp"
#include "kd/cuda/stream.hpp"
#include "kd/formula/logit_batch.hpp"
#include "kd/formula/loss_sums.hpp"
#include "kd/kernel/split_vocabulary.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// batch.classes classes from `first` on, of `classes` in all parts.
struct vocabulary_slice {
  std::size_t first = 0, classes = 0;
};

/// Of one row; plain memory, for any exchange.
template <class Loss>
using slice_row = kernel::slice_row<Loss>;
template <class Loss>
using slice_sums = kernel::slice_sums<Loss>;

namespace detail {

template <class Loss, class Student, class Teacher, class Label, class Gradient>
kernel::sliced_batch<Student, Teacher, Label, Gradient> require_slice(
    const char* name, const formula::logit_batch<Student, Teacher, Label, Gradient>& batch, const Loss* loss,
    const vocabulary_slice& slice) {
  static_assert(!Loss::standardises,
                "kd::cuda::split_vocabulary: a loss that standardises logits would exchange their mean and deviation "
                "before it reads them: gather the rows instead");
  constexpr std::size_t limit = 0x7fffffff;
  if (slice.classes > limit || slice.first > slice.classes || batch.classes > slice.classes - slice.first)
    reject_argument(name, text("the slice must lie in [0,", slice.classes, "), of at most ", limit, " classes"),
                    text("[", slice.first, ",", slice.first + batch.classes, ")"),
                    "pass its first class and the number of all");
  require_batch<Loss>(name, batch);
  require_pointer(name, "loss", loss);
  kernel::sliced_batch<Student, Teacher, Label, Gradient> sliced;
  static_cast<formula::logit_batch<Student, Teacher, Label, Gradient>&>(sliced) = batch;
  sliced.first = slice.first;
  sliced.all_classes = slice.classes;
  return sliced;
}

/// As many threads as the whole row has in one piece, so that one part is the whole call to the bit.
template <class Exchange, class Loss, class Batch>
KD_HIDDEN void launch_slices(stream_view s, const Batch& batch, const Loss* loss, const kernel::counted_rows* counted,
                             const Exchange& exchange, kernel::loss_row<Loss>* terms) {
  const auto with = [&]<unsigned Threads>() {
    launch(s, "loss_of_slices", blocks_for(batch.rows, 1), Threads, 0,
           kernel::loss_of_slices<Threads, Exchange, Loss, Batch>, batch, loss, counted, exchange, terms);
  };
  if (batch.all_classes <= kernel::few_threads_classes)
    with.template operator()<kernel::few_row_threads>();
  else
    with.template operator()<kernel::many_row_threads>();
}

/// A pass that leaves records alone.
template <class Exchange, class Loss, class Batch>
KD_HIDDEN void exchange_slice(stream_view s, Batch batch, const Loss* loss, const Exchange& exchange) {
  batch.gradient = {};
  batch.row_values = nullptr;
  batch.divide_by = formula::divisor::one;
  launch_slices(s, batch, loss, static_cast<const kernel::counted_rows*>(nullptr), exchange,
                static_cast<kernel::loss_row<Loss>*>(nullptr));
}

}  // namespace detail

/// Reads this part's classes: out[row] for every row.
/// Throws argument_error as logit_loss_forward_backward, and for a slice outside the vocabulary.
template <class Loss, class Student, class Teacher, class Label, class Gradient>
KD_HIDDEN void read_slice(stream_view s, const formula::logit_batch<Student, Teacher, Label, Gradient>& batch,
                          const Loss* loss, const vocabulary_slice& slice, slice_row<Loss>* out) {
  constexpr const char* name = "kd::cuda::read_slice";
  if (batch.rows == 0) return;
  const auto sliced = detail::require_slice(name, batch, loss, slice);
  detail::require_pointer(name, "records", out);
  detail::exchange_slice(s, sliced, loss, kernel::read_rows<Loss>{out});
}

/// Joins the records of `parts` parts, [part][row], in their order. Throws argument_error for null pointers.
template <class Loss>
KD_HIDDEN void join_slices(stream_view s, const Loss* loss, std::size_t rows, std::size_t parts,
                           const slice_row<Loss>* all, slice_row<Loss>* joined) {
  constexpr const char* name = "kd::cuda::join_slices";
  if (rows == 0) return;
  detail::require_pointer(name, "loss", loss);
  detail::require_pointer(name, "records", all);
  detail::require_pointer(name, "joined records", joined);
  launch(s, "join_slices", blocks_for(rows, kernel::join_threads), kernel::join_threads, 0, kernel::join_slices<Loss>,
         loss, rows, parts, all, joined);
}

/// The second sweep of losses that have one. Throws argument_error as read_slice.
template <class Loss, class Student, class Teacher, class Label, class Gradient>
KD_HIDDEN void sum_slice(stream_view s, const formula::logit_batch<Student, Teacher, Label, Gradient>& batch,
                         const Loss* loss, const vocabulary_slice& slice, const slice_row<Loss>* joined,
                         slice_sums<Loss>* out) {
  static_assert(Loss::probability_sums > 0, "kd::cuda::sum_slice: this loss has no second sweep: leave the call away");
  constexpr const char* name = "kd::cuda::sum_slice";
  if (batch.rows == 0) return;
  const auto sliced = detail::require_slice(name, batch, loss, slice);
  detail::require_pointer(name, "joined records", joined);
  detail::require_pointer(name, "sums", out);
  detail::exchange_slice(s, sliced, loss, kernel::sum_rows<Loss>{{joined}, out});
}
/// Throws argument_error for null pointers.
template <class Loss>
KD_HIDDEN void join_sums(stream_view s, std::size_t rows, std::size_t parts, const slice_sums<Loss>* all,
                         slice_sums<Loss>* joined) {
  constexpr const char* name = "kd::cuda::join_sums";
  if (rows == 0) return;
  detail::require_pointer(name, "sums", all);
  detail::require_pointer(name, "joined sums", joined);
  launch(s, "join_sums", blocks_for(rows, kernel::join_threads), kernel::join_threads, 0, kernel::join_sums<Loss>, rows,
         parts, all, joined);
}

/// The gradient of this part's classes; the terms of the whole rows, the same for every part, are added to `sums`.
/// Where a row has no finite loss every part reports that row: the part that has its cause says what it is, and the
/// others overflow.
/// @param all of join_sums; null for losses without a second sweep
/// @param scratch, sums as of logit_loss_forward_backward
/// Throws argument_error as read_slice.
template <class Loss, class Student, class Teacher, class Label, class Gradient>
KD_HIDDEN void finish_slice(stream_view s, const formula::logit_batch<Student, Teacher, Label, Gradient>& batch,
                            const Loss* loss, const vocabulary_slice& slice, const slice_row<Loss>* joined,
                            const slice_sums<Loss>* all, std::byte* scratch, formula::loss_sums* sums) {
  constexpr const char* name = "kd::cuda::finish_slice";
  if (batch.rows == 0) return;
  const auto sliced = detail::require_slice(name, batch, loss, slice);
  using batch_type = std::remove_const_t<decltype(sliced)>;
  detail::require_pointer(name, "joined records", joined);
  if (Loss::probability_sums > 0) detail::require_pointer(name, "joined sums", all);
  detail::require_pointer(name, "sums", sums);
  detail::require_scratch(name, scratch);
  auto* const counted = reinterpret_cast<kernel::counted_rows*>(scratch);
  auto* const terms = reinterpret_cast<kernel::loss_row<Loss>*>(scratch + sizeof(kernel::counted_rows));
  using enum formula::divisor;
  if (batch.divide_by == valid_rows || batch.divide_by == weights)
    launch(s, "count_rows", 1, kernel::fold_loss_threads, 0, kernel::count_rows<batch_type>, sliced, counted);
  using exchange = kernel::finish_rows<Loss>;
  detail::launch_slices(s, sliced, loss, counted, exchange{{joined}, all}, terms);
  launch(s, "fold_loss_rows", 1, kernel::fold_loss_threads, 0, kernel::fold_loss_rows<Loss, batch_type>, sliced, loss,
         counted, terms, sums);
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
