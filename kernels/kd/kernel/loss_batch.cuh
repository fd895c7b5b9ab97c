/// The rows of a batch of logits as kernels see them: where each begins, its label, and what it is multiplied by.
#pragma once

#include "kd/formula/logit_batch.hpp"
#include "kd/kernel/block.cuh"
#include "kd/kernel/number.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

inline constexpr float lowest_float = -3.402823466e38f;
inline constexpr float float_infinity = __builtin_huge_valf();
inline constexpr float log2_of_e = 1.44269504f;
/// Stands for a class where there is none.
inline constexpr unsigned no_class = 0xffffffffu;

/// A batch as training steps have it: one type of logits, rows that touch, each of which counts once, and the mean over
/// them. Its kernels take fewer registers than those of a formula::logit_batch, and do the same.
template <class Logit>
struct dense_batch {
  std::size_t rows = 0, classes = 0;
  formula::row_array<const Logit> student = {}, teacher = {};
  formula::row_array<const std::int32_t> labels = {};
  formula::row_array<Logit> gradient = {};

  static constexpr formula::divisor divide_by = formula::divisor::rows;
  static constexpr bool add_to_gradient = false;
  static constexpr double* row_values = nullptr;
};

template <class Batch>
inline constexpr bool is_more_than_dense = requires {
  &Batch::ignore_index;
};

/// The label of a row, and the logits there.
struct row_label {
  unsigned at = no_class;  // no_class where there is none
  bool out_of_range = false;
  float student = bits_to_float(0x7fc00000u), teacher = bits_to_float(0x7fc00000u);  // NaN where there is none
};

/// The label of a row and the logits there, of which `Loss` reads the teacher's where it sets the label apart.
template <class Loss, class Row>
__device__ row_label label_of(const Row& row) {
  row_label found;
  if (row.batch.labels.data == nullptr) return found;
  found.out_of_range = row.label_value < 0 || static_cast<std::uint64_t>(row.label_value) >= row.batch.classes;
  if (found.out_of_range) return found;
  found.at = static_cast<unsigned>(row.label_value);
  found.student = row.student_logit(found.at);
  if constexpr (Loss::label_apart) found.teacher = row.teacher_logit(found.at);
  return found;
}

/// A row of a batch: where its arrays begin, and what it is multiplied by. Everything but the label is found when it is
/// asked for, so that no register keeps it.
template <class Batch>
struct row_of_batch;
template <class Student, class Teacher, class Label, class Gradient>
struct row_of_batch<formula::logit_batch<Student, Teacher, Label, Gradient>> {
  const formula::logit_batch<Student, Teacher, Label, Gradient>& batch;
  unsigned row, group = 0, in_group;  // all below 2^31
  Label label_value = 0;
  bool ignored = false;

  __device__ row_of_batch(const formula::logit_batch<Student, Teacher, Label, Gradient>& batch_, std::size_t row_)
      : batch(batch_), row(static_cast<unsigned>(row_)), in_group(row) {
    if (batch.group_rows != 0) {
      group = row / static_cast<unsigned>(batch.group_rows);
      in_group = row - group * static_cast<unsigned>(batch.group_rows);
    }
    if (batch.labels.data == nullptr) return;
    label_value = *at(batch.labels, 1);
    ignored = static_cast<std::int64_t>(label_value) == batch.ignore_index;
  }

  __device__ unsigned classes() const { return static_cast<unsigned>(batch.classes); }
  /// The row's classes wherever they are, and the number of the first that is here: see split_vocabulary.cuh.
  __device__ unsigned all_classes() const { return classes(); }
  static __device__ unsigned first_class() { return 0; }
  /// How many of the classes the teacher has.
  __device__ unsigned teacher_classes() const {
    return static_cast<unsigned>(teacher_width() < batch.classes ? teacher_width() : batch.classes);
  }
  __device__ const Student* student() const { return at(batch.student, batch.classes); }
  __device__ const Teacher* teacher() const { return at(batch.teacher, teacher_width()); }
  __device__ Gradient* gradient() const { return at(batch.gradient, batch.classes); }
  __device__ bool wants_gradient() const { return batch.gradient.data != nullptr; }
  __device__ float weight() const { return batch.row_weights == nullptr ? 1.0f : batch.row_weights[row]; }
  __device__ bool weight_is_good() const { return weight() >= 0 && weight() < float_infinity; }
  /// By what the gradient is multiplied.
  __device__ float gradient_weight() const {
    return batch.upstream == nullptr ? weight() : weight() * batch.upstream[batch.upstream_per_row ? row : 0];
  }
  __device__ float student_logit(unsigned c) const { return to_float(student()[c]); }
  __device__ float teacher_logit(unsigned c) const {
    return c < teacher_classes() ? to_float(teacher()[c]) : -float_infinity;
  }
  template <class Loss>
  __device__ row_label label() const {
    return label_of<Loss>(*this);
  }

 private:
  __device__ std::size_t teacher_width() const {
    return batch.teacher_classes == 0 ? batch.classes : batch.teacher_classes;
  }
  template <class T>
  __device__ T* at(const formula::row_array<T>& array, std::size_t width) const {
    const std::size_t stride = array.row_stride == 0 ? width : array.row_stride;
    T* const first = array.data + in_group * stride;
    if (batch.group_rows == 0) return first;
    return first + group * (array.group_stride == 0 ? batch.group_rows * stride : array.group_stride);
  }
};

/// A row of a batch as training steps have it.
template <class Logit>
struct row_of_batch<dense_batch<Logit>> {
  static constexpr bool ignored = false;
  const dense_batch<Logit>& batch;
  std::size_t first;  // logit
  std::int32_t label_value;

  __device__ row_of_batch(const dense_batch<Logit>& batch_, std::size_t row)
      : batch(batch_), first(row * batch_.classes), label_value(batch_.labels.data ? batch_.labels.data[row] : -1) {}

  __device__ unsigned classes() const { return static_cast<unsigned>(batch.classes); }
  __device__ unsigned all_classes() const { return classes(); }
  static __device__ unsigned first_class() { return 0; }
  __device__ unsigned teacher_classes() const { return classes(); }
  __device__ const Logit* student() const { return batch.student.data + first; }
  __device__ const Logit* teacher() const { return batch.teacher.data + first; }
  __device__ Logit* gradient() const { return batch.gradient.data + first; }
  __device__ bool wants_gradient() const { return batch.gradient.data != nullptr; }
  __device__ float student_logit(unsigned c) const { return to_float(student()[c]); }
  __device__ float teacher_logit(unsigned c) const { return to_float(teacher()[c]); }
  static __device__ float weight() { return 1; }
  static __device__ bool weight_is_good() { return true; }
  static __device__ float gradient_weight() { return 1; }
  template <class Loss>
  __device__ row_label label() const {
    return label_of<Loss>(*this);
  }
};

/// The rows that are not ignored, and the sum of their weights: what count_rows leaves for the kernels behind it.
struct counted_rows {
  double rows, weights;
};

/// By what a batch divides; a batch of nothing but zeros by 1.
/// @param counted not read unless the batch divides by what was counted
template <class Batch>
__device__ double divisor_of(const Batch& batch, const counted_rows* counted) {
  double divisor = 1;
  if (batch.divide_by == formula::divisor::rows) divisor = static_cast<double>(batch.rows);
  if (batch.divide_by == formula::divisor::valid_rows) divisor = counted->rows;
  if (batch.divide_by == formula::divisor::weights) divisor = counted->weights;
  return divisor == 0 ? 1 : divisor;
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
