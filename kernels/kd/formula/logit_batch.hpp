/// The arrays of one call of a loss, owned by the caller: the same struct for the CPU, and, passed by value, for
/// kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kd/formula/abi.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// 16-bit logits as they lie in memory. Arithmetic is float.
struct bfloat16 {
  std::uint16_t bits;
};
struct float16 {
  std::uint16_t bits;
};

/// Rows of an array. `row_stride` counts elements, 0 means that rows touch. Rows may lie in groups, sequences for
/// example, of logit_batch::group_rows rows that begin group_stride elements apart: a sequence of S logits that predict
/// the labels after them is S - 1 rows, and its labels begin one further on.
template <class T>
struct row_array {
  T* data = nullptr;
  std::size_t row_stride = 0, group_stride = 0;
};

/// By what the sum of the rows' losses is divided, and with it every gradient. Ignored rows count for `rows` alone.
enum class divisor : std::uint32_t {
  rows,        ///< all rows
  valid_rows,  ///< rows that are not ignored; 0 rows give terms and gradients of 0
  weights,     ///< the sum of the row weights of the rows that are not ignored
  one,         ///< nothing: the sum itself
};

/// Inputs and outputs for `rows` rows of `classes` logits.
template <class Student = float, class Teacher = Student, class Label = std::int32_t, class Gradient = Student>
struct logit_batch {
  std::size_t rows = 0, classes = 0;
  std::size_t group_rows = 0;  // rows of a group; 0: all rows are one

  row_array<const Student> student = {};
  row_array<const Teacher> teacher = {};  // data null for losses that need none
  std::size_t teacher_classes = 0;        // 0: as many as the student. The student's further classes are masked in the
                                          // teacher; the teacher's further ones are cut, and the rest renormalised
  row_array<const Label> labels = {};     // data null: no labels, for losses that need none
  std::int64_t ignore_index = -100;       // a row of this label is not looked at, and its gradient is 0
  const float* row_weights = nullptr;     // [rows]; null: 1. They multiply terms and gradient

  divisor divide_by = divisor::rows;
  const float* upstream = nullptr;  // d(objective)/d(loss), which multiplies the gradient; null: 1
  bool upstream_per_row = false;    // [rows] instead of one

  row_array<Gradient> gradient =
      {};                        // data null: values alone. Overwritten, or, where it is the student's array, in place
  bool add_to_gradient = false;  // added to what is there instead
  double* row_values = nullptr;  // [rows, Loss::values + 1]: the terms of each row, and their weighted sum; may be null
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
