/// What every engine asks of the arrays of a loss before it touches them: they are there, rows lie apart, and the
/// gradient is no other array.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/sizes.hpp"
#include "kd/formula/logit_batch.hpp"
#include "kd/formula/top_k_rows.hpp"

namespace kd::inline KD_ABI::detail {

/// Addresses from the first element of an array to its last.
struct memory_range {
  std::uintptr_t begin = 0, end = 0;
  bool overlaps(const memory_range& other) const { return begin < other.end && other.begin < end; }
};

/// Throws argument_error where rows or groups overlap, or where there are more bytes than addresses.
template <class T>
memory_range range_of(const char* name, const char* array, const formula::row_array<T>& a, std::size_t width,
                      std::size_t rows, std::size_t group_rows) {
  if (a.data == nullptr || rows == 0) return {};
  if (a.row_stride != 0 && a.row_stride < width)
    reject_argument(name, text("row_stride of the ", array, " must be 0 or at least ", width), a.row_stride,
                    "pass the distance of two rows, in elements");
  const std::size_t stride = a.row_stride == 0 ? width : a.row_stride, in_group = group_rows == 0 ? rows : group_rows;
  const std::size_t groups = (rows + in_group - 1) / in_group;
  std::size_t size = product_of(name, {in_group, stride, sizeof(T)}, "pass fewer rows");
  if (groups > 1) {
    const std::size_t group = a.group_stride == 0 ? in_group * stride : a.group_stride;
    if (group < (in_group - 1) * stride + width)
      reject_argument(name,
                      text("group_stride of the ", array, " must be 0 or at least ", (in_group - 1) * stride + width),
                      group, "pass the distance of two groups, in elements");
    size = product_of(name, {groups, group, sizeof(T)}, "pass fewer rows");
  }
  const auto begin = reinterpret_cast<std::uintptr_t>(a.data);
  return {begin, begin + size - (stride - width) * sizeof(T)};
}

/// Whether gradient and student's logits are one array, element by element.
template <class Batch>
bool is_in_place(const Batch& batch) {
  return static_cast<const void*>(batch.gradient.data) == static_cast<const void*>(batch.student.data) &&
         sizeof(*batch.gradient.data) == sizeof(*batch.student.data) &&
         batch.gradient.row_stride == batch.student.row_stride &&
         batch.gradient.group_stride == batch.student.group_stride;
}

/// @param batch a formula::logit_batch, or what has its members but for those of groups and vocabularies
/// Throws argument_error.
template <class Loss, class Batch>
void require_arrays(const char* name, const Batch& batch) {
  const auto require = [&](const char* what, const void* data, const char* remedy) {
    if (data == nullptr) reject_argument(name, text(what, " must not be null"), "a null pointer", remedy);
  };
  require("student logits", batch.student.data, "pass [rows,classes]");
  if (Loss::needs_teacher) require("teacher logits", batch.teacher.data, "pass [rows,classes]");
  if (Loss::needs_label) require("labels", batch.labels.data, "pass [rows]");
  std::size_t group_rows = 0, teacher_classes = 0;
  if constexpr (requires { batch.group_rows; }) {
    group_rows = batch.group_rows;
    teacher_classes = batch.teacher_classes;
  }
  if (teacher_classes == 0) teacher_classes = batch.classes;
  const auto at = [&](const char* array, const auto& rows, std::size_t width) {
    return range_of(name, array, rows, width, batch.rows, group_rows);
  };
  const memory_range student = at("student", batch.student, batch.classes);
  const memory_range teacher = Loss::needs_teacher ? at("teacher", batch.teacher, teacher_classes) : memory_range{};
  (void)at("labels", batch.labels, 1);
  const memory_range gradient = at("gradient", batch.gradient, batch.classes);
  const bool in_place = is_in_place(batch);
  if ((gradient.overlaps(student) && !in_place) || gradient.overlaps(teacher))
    reject_argument(name, "the gradient must not share memory with the logits", "arrays that overlap",
                    "pass an array of its own, or the student's logits themselves, of the same type and strides");
  if (in_place && batch.add_to_gradient)
    reject_argument(name, "a gradient that is added to must not be the student's logits", "arrays that overlap",
                    "pass an array of its own");
}

/// Throws argument_error for k outside [1, 256] or above the classes, and arrays that are not there or whose rows
/// overlap.
template <class Value, class Index>
void require_top_k_arrays(const char* name, const formula::top_k_rows<Value, Index>& from) {
  const std::size_t most = from.most < from.classes ? from.most : from.classes;
  if (from.k == 0 || from.k > most)
    reject_argument(name, text("k must lie in [1,", most, "]"), from.k,
                    "keep fewer classes, or pass the whole row to the loss");
  if (from.indices.data == nullptr || from.values.data == nullptr)
    reject_argument(name, "indices and values must not be null", "a null pointer", "pass [rows,k] and [rows,k]");
  (void)range_of(name, "indices", from.indices, from.k, from.rows, 0);
  (void)range_of(name, "values", from.values, from.k, from.rows, 0);
}
/// The same for what expand_top_k writes, and where the rest is one_bucket.
template <class Value, class Index>
void require_expansion(const char* name, const formula::top_k_rows<Value, Index>& from,
                       const formula::row_array<float>& to) {
  if (from.rest == formula::top_k_rest::one_bucket)
    reject_argument(name, "the rest must be masked or spread", "one_bucket",
                    "call kd::forward_backward with the top_k_rows");
  require_top_k_arrays(name, from);
  if (to.data == nullptr)
    reject_argument(name, "the rows to write must not be null", "a null pointer", "pass [rows,classes]");
  const memory_range out = range_of(name, "logits", to, from.classes, from.rows, 0);
  if (out.overlaps(range_of(name, "indices", from.indices, from.k, from.rows, 0)) ||
      out.overlaps(range_of(name, "values", from.values, from.k, from.rows, 0)))
    reject_argument(name, "the rows to write must not share memory with indices or values", "arrays that overlap",
                    "pass an array of its own");
}

}  // namespace kd::inline KD_ABI::detail
