/// Losses on the logits of an output matrix, whose logits are never all in memory: hidden states and matrices in, terms
/// and the gradients of the student's hidden states and matrix out.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <string_view>
#include <type_traits>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/sizes.hpp"
#include "kd/cpu/buffer.hpp"
#include "kd/cpu/detail/row_products.hpp"
#include "kd/cpu/device.hpp"
#include "kd/cpu/logit_loss.hpp"
#include "kd/formula/logit_batch.hpp"
#include "kd/forward_backward.hpp"
#include "kd/loss/formula_of.hpp"
#include "kd/loss/loss_terms.hpp"
#include "kd/loss/require_arrays.hpp"

namespace kd::inline KD_ABI {

/// Logits as a product: logits[row][c] = sum_k hidden[row][k] matrix[c][k] + bias[c]. float, bfloat16 or float16; sums
/// are float.
template <class T>
struct linear_logits {
  const T* hidden = nullptr;    // [rows,width]
  const T* matrix = nullptr;    // [classes,width]
  std::size_t width = 0;        // of the hidden states
  const float* bias = nullptr;  // [classes]; null: none
};

/// Inputs and outputs for `rows` rows of `classes` logits that are computed as the loss needs them.
template <class Student = float, class Teacher = Student, class Label = std::int32_t>
struct linear_batch {
  std::size_t rows = 0, classes = 0;
  linear_logits<Student> student = {};
  linear_logits<Teacher> teacher = {};  // hidden null for losses that need none
  const Label* labels = nullptr;        // [rows]; null: no labels
  std::int64_t ignore_index = -100;     // a row of this label is not looked at: no logit of it is computed
  const float* row_weights = nullptr;   // [rows]; null: 1. They multiply terms and gradients
  formula::divisor divide_by = formula::divisor::rows;
  const float* upstream = nullptr;  // d(objective)/d(loss), one number, which multiplies the gradients; null: 1

  float* d_hidden = nullptr;     // [rows,width] of the student; null: not wanted, as below
  float* d_matrix = nullptr;     // [classes,width]
  float* d_bias = nullptr;       // [classes]
  bool add_to_gradient = false;  // added to what is there instead

  std::size_t memory = std::size_t{256} << 20;  // bytes that the call may allocate; decides how many rows are one chunk
};

/// What the chunks of a call come to: see linear_chunks.
struct linear_chunk {
  std::size_t rows = 0;   // that are computed at once
  std::size_t bytes = 0;  // that the call allocates
};

namespace detail {

/// Where the parts of a chunk begin in its scratch, in bytes; each at a multiple of 64.
struct linear_scratch {
  std::size_t student, teacher, hidden, teacher_hidden, panels, counted, labels, weights, loss, end;
};
/// Throws argument_error where the sizes wrap.
template <class Batch>
linear_scratch scratch_of(const char* name, const cpu::parallel& threads, const Batch& batch, bool has_teacher,
                          std::size_t rows) {
  linear_scratch at = {};
  std::size_t end = 0;
  const auto next = [&](std::initializer_list<std::size_t> bytes) {
    const std::size_t begin = end;
    end += (product_of(name, bytes, "pass fewer rows or classes") + 63) / 64 * 64;
    if (end > static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()))
      reject_argument(name, "the scratch must fit an address", end, "pass fewer rows or classes");
    return begin;
  };
  const auto count = static_cast<std::size_t>(std::max(threads.threads, 1));
  using cpu::detail::padded_stride;
  at.student = next({rows, padded_stride(batch.classes), sizeof(float)});
  at.teacher = next({has_teacher ? rows : 0, padded_stride(batch.classes), sizeof(float)});
  at.hidden = next({rows, padded_stride(batch.student.width), sizeof(float)});
  at.teacher_hidden = next({has_teacher ? rows : 0, padded_stride(batch.teacher.width), sizeof(float)});
  at.panels = next({count, cpu::detail::panel_floats<cpu::native_width>, sizeof(float)});
  at.counted = next({batch.rows, sizeof(std::size_t)});
  at.labels = next({rows, sizeof(std::int64_t)});
  at.weights = next({rows, sizeof(float)});
  at.loss = next({cpu::logit_loss_scratch(threads, rows, batch.classes)});
  at.end = end;
  return at;
}

template <class Batch>
void require_linear(const char* name, const Batch& batch, bool needs_teacher, bool needs_label) {
  const auto require = [&](const char* whose, const char* what, const void* data, const char* remedy) {
    if (data == nullptr) reject_argument(name, text(whose, what, " must not be null"), "a null pointer", remedy);
  };
  if (batch.classes == 0)
    reject_argument(name, "there must be at least one class", batch.classes, "pass the number of the matrix's rows");
  const auto logits = [&](const char* whose, const auto& of) {
    require(whose, "'s hidden states", of.hidden, "pass [rows,width]");
    require(whose, "'s matrix", of.matrix, "pass [classes,width]");
    if (of.width == 0)
      reject_argument(name, text("the width of the ", whose, "'s hidden states must be at least 1"), of.width,
                      "pass the length of a row of its matrix");
    (void)product_of(name, {std::max(batch.rows, batch.classes), of.width, sizeof(float)}, "pass fewer rows");
  };
  logits("student", batch.student);
  if (needs_teacher) logits("teacher", batch.teacher);
  if (needs_label) require("", "labels", batch.labels, "pass [rows]");

  const auto range = [](const auto* data, std::size_t count) {
    const auto begin = reinterpret_cast<std::uintptr_t>(data);
    return memory_range{begin, data == nullptr ? begin : begin + count * sizeof *data};
  };
  const std::size_t of_hidden = batch.rows * batch.student.width, of_matrix = batch.classes * batch.student.width;
  const memory_range gradients[] = {range(batch.d_hidden, of_hidden), range(batch.d_matrix, of_matrix),
                                    range(batch.d_bias, batch.classes)};
  const memory_range inputs[] = {range(batch.student.hidden, of_hidden),
                                 range(batch.student.matrix, of_matrix),
                                 range(batch.student.bias, batch.classes),
                                 range(batch.teacher.hidden, needs_teacher ? batch.rows * batch.teacher.width : 0),
                                 range(batch.teacher.matrix, needs_teacher ? batch.classes * batch.teacher.width : 0),
                                 range(batch.teacher.bias, batch.classes),
                                 range(batch.labels, batch.rows),
                                 range(batch.row_weights, batch.rows)};
  const auto refuse = [&] {
    reject_argument(name, "gradients must not share memory with inputs or with each other", "arrays that overlap",
                    "pass arrays of their own");
  };
  for (std::size_t i = 0; i < std::size(gradients); ++i) {
    for (const memory_range& input : inputs)
      if (gradients[i].overlaps(input)) refuse();
    for (std::size_t j = 0; j < i; ++j)
      if (gradients[i].overlaps(gradients[j])) refuse();
  }
}

}  // namespace detail

/// How many rows of the batch are computed at once within batch.memory bytes, the more the faster, and the bytes that
/// the call then allocates, all at once. Throws argument_error where one row does not fit, with the bytes that it
/// needs.
template <class Loss, class Student, class Teacher, class Label>
linear_chunk linear_chunks(const Loss&, const linear_batch<Student, Teacher, Label>& batch,
                           const cpu::device& device = {}) {
  constexpr const char* name = Loss::name;
  const auto bytes_of = [&](std::size_t rows) {
    return cpu::buffer<std::byte>::allocated(
        detail::scratch_of(name, device.threads(), batch, formula_of<Loss>::needs_teacher, rows).end);
  };
  if (bytes_of(1) > batch.memory)
    reject_argument(name, text("memory must be at least ", bytes_of(1), " bytes for one row"), batch.memory,
                    "allow more");
  const std::size_t all = std::max<std::size_t>(batch.rows, 1);
  std::size_t fits = 1, too_many = all + 1;
  while (fits + 1 < too_many) {
    const std::size_t middle = fits + (too_many - fits) / 2;
    (bytes_of(middle) <= batch.memory ? fits : too_many) = middle;
  }
  // Chunks of equal size, whose rows are a multiple of what the products take at once where there are many.
  const std::size_t chunks = (all + fits - 1) / fits;
  std::size_t rows = (all + chunks - 1) / chunks;
  if (rows + 5 < fits) rows = (rows + 5) / 6 * 6;
  return {rows, bytes_of(rows)};
}

/// The terms of a loss on logits that are products, and its gradients by the student's hidden states, matrix and bias:
///
///   kd::forward_backward(kd::distillation{.temperature = 2},
///                        kd::linear_batch<kd::bfloat16>{.rows = 512, .classes = 128256,
///                                                       .student = {h, w, 2048}, .teacher = {g, v, 4096},
///                                                       .labels = y, .d_hidden = dh, .d_matrix = dw});
///
/// The logits of one chunk of rows are in memory at a time, and go from the product into the loss as float, whatever
/// the inputs are: rounded to bfloat16 they would be off by up to 1/16 at 30. The same bits for any number of threads
/// that leaves the chunk as it is; in other chunks the matrix's gradient is summed in other parts. Throws
/// argument_error for options, sizes, labels or a bound that do not fit, before anything is written, and
/// non_finite_error, which names row and class, where a row has no finite loss: the gradients are void then.
template <class Loss, class Student, class Teacher, class Label>
loss_terms forward_backward(const Loss& loss, const linear_batch<Student, Teacher, Label>& batch,
                            const cpu::device& device = {}) {
  using namespace cpu::detail;
  using Formula = formula_of<Loss>;
  constexpr std::size_t width = cpu::native_width, columns = panel_columns<width>;
  constexpr const char* name = Loss::name;
  constexpr bool has_teacher = Formula::needs_teacher;
  loss.validate();
  const auto formula = loss.formula();
  loss_terms terms;
  for (const std::string_view value : value_names<Formula>) terms.list[terms.size++].name = value;
  if (batch.rows == 0) return terms;
  kd::detail::require_linear(name, batch, has_teacher, Formula::needs_label);

  const cpu::parallel& threads = device.threads();
  const linear_chunk chunk = linear_chunks(loss, batch, device);
  const auto at = kd::detail::scratch_of(name, threads, batch, has_teacher, chunk.rows);
  cpu::buffer<std::byte> memory(at.end);
  std::byte* const begin = memory.data();
  const formula::logit_batch<float, float, Label, float> all = {.rows = batch.rows,
                                                                .classes = batch.classes,
                                                                .labels = {batch.labels},
                                                                .ignore_index = batch.ignore_index,
                                                                .row_weights = batch.row_weights,
                                                                .divide_by = batch.divide_by};
  const counted_rows counted =
      rows_counted(name, all, batch.classes, reinterpret_cast<std::size_t*>(begin + at.counted));
  const double divide_by = divisor_of(all, counted);
  const auto floats = [&](std::size_t offset) { return reinterpret_cast<float*>(begin + offset); };
  float* const z = floats(at.student);
  float* const x = floats(at.hidden);
  auto* const labels = reinterpret_cast<std::int64_t*>(begin + at.labels);
  const std::size_t hidden = batch.student.width, classes = batch.classes;
  const std::size_t z_row = padded_stride(classes), x_row = padded_stride(hidden);
  const float factor = static_cast<float>((batch.upstream ? double{*batch.upstream} : 1.0) / divide_by);
  const bool wants_gradient = batch.d_hidden || batch.d_matrix || batch.d_bias;

  if (!batch.add_to_gradient) {
    if (batch.d_matrix && counted.count == 0) std::fill_n(batch.d_matrix, classes * hidden, 0.0f);
    if (batch.d_bias) std::fill_n(batch.d_bias, classes, 0.0f);
    if (batch.d_hidden && counted.list) std::fill_n(batch.d_hidden, batch.rows * hidden, 0.0f);
  }

  const auto panel_of = [&](std::size_t thread) { return floats(at.panels) + thread * panel_floats<width>; };
  // The logits of `rows` rows from `first` on, by panels of classes; their hidden states are left in `x_of`.
  const auto logits_of = [&]<class T>(const linear_logits<T>& of, std::size_t first, std::size_t rows, float* x_of,
                                      float* z_of) {
    const std::size_t stride = padded_stride(of.width);
    for (std::size_t i = 0; i < rows; ++i) {
      const T* const from = of.hidden + counted[first + i] * of.width;
      for (std::size_t k = 0; k < of.width; ++k) x_of[i * stride + k] = to_float(from[k]);
      std::fill(x_of + i * stride + of.width, x_of + (i + 1) * stride, 0.0f);
    }
    threads.split((classes + columns - 1) / columns, [&](std::size_t begins, std::size_t ends, std::size_t thread) {
      float* const panel = panel_of(thread);
      for (std::size_t p = begins; p < ends; ++p) {
        const std::size_t c = p * columns, here = std::min(columns, classes - c);
        for (std::size_t k = 0; k < of.width; k += panel_rows) {
          const std::size_t depth = std::min(panel_rows, of.width - k);
          pack_panel_transposed<width>(of.matrix + c * of.width + k, of.width, depth, here, panel);
          multiply_panel<width>({x_of + k, stride, 1}, rows, panel, columns, depth, z_of + c, z_row, here, k > 0);
        }
        if (of.bias)
          for (std::size_t row = 0; row < rows; ++row)
            for (std::size_t j = c; j < c + here; ++j) z_of[row * z_row + j] += of.bias[j];
      }
    });
  };

  double correct = 0, agrees = 0;
  for (std::size_t first = 0; first < counted.count; first += chunk.rows) {
    const std::size_t rows = std::min(chunk.rows, counted.count - first);
    logits_of(batch.student, first, rows, x, z);
    if constexpr (has_teacher) logits_of(batch.teacher, first, rows, floats(at.teacher_hidden), floats(at.teacher));
    for (std::size_t i = 0; i < rows; ++i) {
      if (batch.labels) labels[i] = batch.labels[counted[first + i]];
      if (batch.row_weights) floats(at.weights)[i] = batch.row_weights[counted[first + i]];
    }
    loss_result part = fused_loss<width>(name, threads,
                                         formula::logit_batch<float, float, std::int64_t>{
                                             .rows = rows,
                                             .classes = classes,
                                             .student = {z, z_row},
                                             .teacher = {has_teacher ? floats(at.teacher) : nullptr, z_row},
                                             .labels = {batch.labels ? labels : nullptr},
                                             .ignore_index = std::numeric_limits<std::int64_t>::min(),
                                             .row_weights = batch.row_weights ? floats(at.weights) : nullptr,
                                             .divide_by = formula::divisor::one,
                                             .upstream = &factor,
                                             .gradient = {wants_gradient ? z : nullptr, z_row}},
                                         formula, std::span(begin + at.loss, at.end - at.loss));
    if (!part.finite()) part.fault.row = counted[first + part.fault.row];
    require_finite(part, name);
    terms.total += part.terms.total;
    for (std::size_t i = 0; i < terms.size; ++i) terms.list[i].value += part.terms.list[i].value;
    correct += part.terms.accuracy * static_cast<double>(rows);
    agrees += part.terms.teacher_agreement * static_cast<double>(rows);

    // z is the gradient by the logits now. Of the matrix z^T x, by blocks of classes whose part of z stays in the
    // cache.
    if (batch.d_matrix) {
      constexpr std::size_t block = 96;
      threads.for_each((classes + block - 1) / block, [&](std::size_t b) {
        const std::size_t c = b * block, height = std::min(block, classes - c);
        for (std::size_t r = 0; r < rows; r += panel_rows)
          for (std::size_t k = 0; k < hidden; k += columns)
            multiply_panel<width>({z + r * z_row + c, 1, z_row}, height, x + r * x_row + k, x_row,
                                  std::min(panel_rows, rows - r), batch.d_matrix + c * hidden + k, hidden,
                                  std::min(columns, hidden - k), batch.add_to_gradient || first > 0 || r > 0);
      });
    }
    if (batch.d_bias)
      for (std::size_t row = 0; row < rows; ++row)
        for (std::size_t c = 0; c < classes; ++c) batch.d_bias[c] += z[row * z_row + c];
    // Of the hidden states z W, by runs of classes whose part of W is read once; x is free now.
    if (batch.d_hidden) {
      threads.split((hidden + columns - 1) / columns, [&](std::size_t begins, std::size_t ends, std::size_t thread) {
        for (std::size_t c = 0; c < classes; c += panel_rows)
          for (std::size_t p = begins; p < ends; ++p) {
            const std::size_t depth = std::min(panel_rows, classes - c), k = p * columns;
            const std::size_t here = std::min(columns, hidden - k);
            pack_panel<width>(batch.student.matrix + c * hidden + k, hidden, depth, here, panel_of(thread));
            multiply_panel<width>({z + c, z_row, 1}, rows, panel_of(thread), columns, depth, x + k, x_row, here, c > 0);
          }
      });
      for (std::size_t i = 0; i < rows; ++i) {
        float* const to = batch.d_hidden + counted[first + i] * hidden;
        for (std::size_t k = 0; k < hidden; ++k) to[k] = x[i * x_row + k] + (batch.add_to_gradient ? to[k] : 0.0f);
      }
    }
  }
  const auto looked_at = static_cast<double>(std::max<std::size_t>(counted.count, 1));
  terms.rows = counted.count;
  terms.total /= divide_by;
  for (std::size_t i = 0; i < terms.size; ++i) terms.list[i].value /= divide_by;
  terms.accuracy = correct / looked_at;
  terms.teacher_agreement = agrees / looked_at;
  return terms;
}

}  // namespace kd::inline KD_ABI
