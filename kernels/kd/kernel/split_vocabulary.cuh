/// The losses by block on logits of a vocabulary that is split: a part reads its classes, parts exchange a record for
/// each row, and each writes the gradient of its own classes. kd/cuda/split_vocabulary.hpp says in which order.
///
///   loss_of_slices, read_rows     out[row] = maxima and sums of the classes that are here
///   join_slices                   joined[row] = those of all parts, [part][row], in their order
///   loss_of_slices, sum_rows      out[row] = the sums over q and p of the classes that are here, where a loss has them
///   join_sums                     likewise
///   loss_of_slices, finish_rows   the gradient, and terms[row] for fold_loss_rows
/// Layout and launch: as logit_loss_by_block; joins a thread per row, 256 in a block. Bytes per class: 8 read in each
/// of the three, 4 written. Sums are in a fixed order. Limits: rows and all classes below 2^31. Checked in
/// tests/cuda/split_vocabulary_test.cpp.
#pragma once

#include "kd/kernel/loss_block.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// The classes [first, first + classes) of all_classes; labels are those of all of them.
template <class Student, class Teacher, class Label, class Gradient>
struct sliced_batch : formula::logit_batch<Student, Teacher, Label, Gradient> {
  std::size_t first = 0, all_classes = 0;
};

template <class Student, class Teacher, class Label, class Gradient>
struct row_of_batch<sliced_batch<Student, Teacher, Label, Gradient>>
    : row_of_batch<formula::logit_batch<Student, Teacher, Label, Gradient>> {
  using whole = row_of_batch<formula::logit_batch<Student, Teacher, Label, Gradient>>;
  unsigned first, all;

  __device__ row_of_batch(const sliced_batch<Student, Teacher, Label, Gradient>& batch, std::size_t row)
      : whole(batch, row), first(static_cast<unsigned>(batch.first)), all(static_cast<unsigned>(batch.all_classes)) {}

  __device__ unsigned all_classes() const { return all; }
  __device__ unsigned first_class() const { return first; }
  /// `at` counts from the first class that is here; none where the label is elsewhere.
  template <class Loss>
  __device__ row_label label() const {
    row_label found;
    if (this->batch.labels.data == nullptr) return found;
    found.out_of_range = this->label_value < 0 || static_cast<std::uint64_t>(this->label_value) >= all;
    const unsigned here = static_cast<unsigned>(this->label_value) - first;
    if (found.out_of_range || here >= this->classes()) return found;
    found.at = here;
    found.student = this->student_logit(here);
    if constexpr (Loss::label_apart) found.teacher = this->teacher_logit(here);
    return found;
  }
};

/// What is known of a row's classes, of one part or of all; plain memory, for any exchange. The label's logits are NaN
/// where it is not among them.
template <class Loss>
struct slice_row {
  row_maxima maxima;
  formula::sums<Loss, float> sums;
  float hidden_student = -float_infinity, hidden_teacher = -float_infinity;  // see partial_row
  float label_student = row_label{}.student, label_teacher = row_label{}.teacher;
  std::uint32_t has_label = 0;
};
template <class Loss>
using slice_sums = formula::few<float, Loss::probability_sums>;

template <class Loss>
struct read_rows {
  static constexpr bool reads = true, sums_probabilities = false, ends = false;
  slice_row<Loss>* out;

  template <class Row, class Partial>
  __device__ bool sums(const Row& at, const Partial& part, const row_label& label) const {
    if (threadIdx.x != 0) return false;
    slice_row<Loss> row;
    row.maxima = part.maxima;
    if (row.maxima.student_class != no_class) row.maxima.student_class += at.first_class();
    if (row.maxima.teacher_class != no_class) row.maxima.teacher_class += at.first_class();
    row.sums = part.sums;
    row.hidden_student = part.hidden_student;
    row.hidden_teacher = part.hidden_teacher;
    row.label_student = label.student;
    row.label_teacher = label.teacher;
    row.has_label = label.at != no_class;
    out[blockIdx.x] = row;
    return false;
  }
  template <class Sums>
  __device__ bool probabilities(Sums&) const {
    return false;
  }
  __device__ void ignored() const {
    if (threadIdx.x == 0) out[blockIdx.x] = {};
  }
};

/// Of the passes after the first: the row is what was joined.
template <class Loss>
struct joined_rows {
  static constexpr bool reads = false;
  const slice_row<Loss>* joined;

  template <class Row, class Partial>
  __device__ bool sums(const Row& at, Partial& part, row_label& label) const {
    const slice_row<Loss>& row = joined[blockIdx.x];
    part.maxima = row.maxima;
    part.sums = row.sums;
    part.hidden_student = row.hidden_student;
    part.hidden_teacher = row.hidden_teacher;
    label.student = row.label_student;
    label.teacher = row.label_teacher;
    label.at = row.has_label ? static_cast<unsigned>(at.label_value) : no_class;
    return true;
  }
};
template <class Loss>
struct sum_rows : joined_rows<Loss> {
  static constexpr bool sums_probabilities = true, ends = false;
  slice_sums<Loss>* out;

  __device__ bool probabilities(const slice_sums<Loss>& of_row) const {
    if (threadIdx.x == 0) out[blockIdx.x] = of_row;
    return false;
  }
  __device__ void ignored() const {
    if (threadIdx.x == 0) out[blockIdx.x] = {};
  }
};
template <class Loss>
struct finish_rows : joined_rows<Loss> {
  static constexpr bool sums_probabilities = false, ends = true;
  const slice_sums<Loss>* all;

  __device__ bool probabilities(slice_sums<Loss>& of_row) const {
    of_row = all[blockIdx.x];
    return true;
  }
  __device__ void ignored() const {}
};

/// @param counted of count_rows, not read unless the batch divides by it
/// @param terms [rows], for finish_rows
template <unsigned Threads, class Exchange, class Loss, class Batch>
KD_KERNEL void __launch_bounds__(Threads, 1)
    loss_of_slices(const Batch batch, const Loss* loss, const counted_rows* counted, const Exchange exchange,
                   loss_row<Loss>* terms) {
  loss_of_block_rows<Threads>(batch, loss, counted, terms, exchange);
}

inline constexpr unsigned join_threads = 256;

/// @param parts [count][rows]
template <class Loss>
KD_KERNEL void __launch_bounds__(join_threads) join_slices(const Loss* loss, std::size_t rows, std::size_t count,
                                                           const slice_row<Loss>* parts, slice_row<Loss>* joined) {
  using partial = partial_row<Loss, student_exponentials::separate>;
  const std::size_t row = std::size_t{blockIdx.x} * join_threads + threadIdx.x;
  if (row >= rows) return;
  const softenings soft(*loss, row_spread{});
  slice_row<Loss> all;
  for (std::size_t p = 0; p < count; ++p) {
    const slice_row<Loss>& part = parts[p * rows + row];
    take_larger(all.maxima.student, all.maxima.student_class, part.maxima.student, part.maxima.student_class);
    take_larger(all.maxima.teacher, all.maxima.teacher_class, part.maxima.teacher, part.maxima.teacher_class);
    all.hidden_student = fmaxf(all.hidden_student, part.hidden_student);
    all.hidden_teacher = fmaxf(all.hidden_teacher, part.hidden_teacher);
    if (part.has_label == 0) continue;
    all.label_student = part.label_student;
    all.label_teacher = part.label_teacher;
    all.has_label = 1;
  }
  for (std::size_t p = 0; p < count; ++p) {
    const slice_row<Loss>& part = parts[p * rows + row];
    partial one;
    one.maxima = part.maxima;
    one.sums = part.sums;
    one.rescale(all.maxima.student, all.maxima.teacher, soft);
    all.sums.student += one.sums.student;
    all.sums.teacher += one.sums.teacher;
    all.sums.hard += one.sums.hard;
    for (std::size_t i = 0; i != Loss::moments.size; ++i) all.sums.moments.at[i] += one.sums.moments.at[i];
    for (std::size_t i = 0; i != Loss::logit_sums; ++i) all.sums.logits.at[i] += one.sums.logits.at[i];
  }
  joined[row] = all;
}

/// @param parts [count][rows]
template <class Loss>
KD_KERNEL void __launch_bounds__(join_threads)
    join_sums(std::size_t rows, std::size_t count, const slice_sums<Loss>* parts, slice_sums<Loss>* joined) {
  const std::size_t row = std::size_t{blockIdx.x} * join_threads + threadIdx.x;
  if (row >= rows) return;
  slice_sums<Loss> all = {};
  for (std::size_t p = 0; p < count; ++p)
    for (std::size_t i = 0; i != Loss::probability_sums; ++i) all.at[i] += parts[p * rows + row].at[i];
  joined[row] = all;
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
