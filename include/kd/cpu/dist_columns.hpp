/// DIST's relation between samples on the CPU device: see kd/loss/dist_columns.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/sizes.hpp"
#include "kd/cpu/device.hpp"
#include "kd/cpu/exponential.hpp"
#include "kd/cpu/logit_loss.hpp"
#include "kd/formula/logit_batch.hpp"
#include "kd/loss/dist_columns.hpp"

namespace kd::inline KD_ABI::cpu {

/// Bytes of scratch.
inline std::size_t dist_columns_scratch(std::size_t rows, std::size_t classes) {
  constexpr const char* name = "kd::cpu::dist_columns_scratch";
  return 64 + product_of(name, {rows, 4 * sizeof(float)}, "pass fewer rows") +
         product_of(name, {classes + native_width, 4 * sizeof(float) + sizeof(double)}, "pass fewer classes");
}

namespace detail {

/// softmax of a row: exp((x - max)/T) * unit.
struct softened_row {
  float max, unit;
};
/// Of a column: the means of q and p, and g = steepness * (slope * (q - its mean) - (p - its mean)), the gradient by q.
struct column_statistics {
  float *student_mean, *teacher_mean, *slope, *steepness;
};

template <std::size_t Width>
inline vector_of<Width> softened(const float* row, std::size_t c, std::size_t classes, const softened_row& of,
                                 const exponential_scale& scale) {
  return exp_nonpositive<Width>(load_of<Width>(row, c, classes) - of.max, scale) * of.unit;
}

template <std::size_t Width>
inline softened_row soften_row(const float* row, std::size_t classes, const exponential_scale& scale) {
  vector_of<Width> max = splat<Width>(-std::numeric_limits<float>::infinity());
  bool is_number = true;
  for (std::size_t c = 0; c < classes; ++c) is_number = is_number && row[c] == row[c];
  for (std::size_t c = 0; c < classes; c += Width) max = larger(load_of<Width>(row, c, classes), max);
  softened_row of{largest_lane<Width>(max), 1};
  double sum = 0;
  for (std::size_t c = 0; c < classes; c += Width)
    sum += double{sum_of_lanes<Width>(softened<Width>(row, c, classes, of, scale))};
  of.unit = is_number && std::isfinite(of.max) ? static_cast<float>(1 / sum) : std::numeric_limits<float>::quiet_NaN();
  return of;
}

/// Columns [c, c + Width): means and centred sums over the rows, in their order, in double. Returns the columns' share
/// of the value.
template <std::size_t Width, class Batch>
inline double relate_columns(const Batch& batch, std::size_t c, const softened_row* students,
                             const softened_row* teachers, const exponential_scale& scale,
                             const exponential_scale& teacher_scale, const column_statistics& to) {
  const std::size_t classes = batch.classes, lanes = std::min(Width, classes - c);
  double q_mean[Width] = {}, p_mean[Width] = {}, qq[Width] = {}, pp[Width] = {}, qp[Width] = {};
  const auto each_row = [&](const auto& add) {
    for (std::size_t row = 0; row < batch.rows; ++row) {
      float q[Width], p[Width];
      store(q,
            softened<Width>(row_at(batch.student, classes, batch.group_rows, row), c, classes, students[row], scale));
      store(p, softened<Width>(row_at(batch.teacher, classes, batch.group_rows, row), c, classes, teachers[row],
                               teacher_scale));
      for (std::size_t l = 0; l < Width; ++l) add(l, double{q[l]}, double{p[l]});
    }
  };
  each_row([&](std::size_t l, double q, double p) { q_mean[l] += q, p_mean[l] += p; });
  for (std::size_t l = 0; l < Width; ++l)
    q_mean[l] /= static_cast<double>(batch.rows), p_mean[l] /= static_cast<double>(batch.rows);
  each_row([&](std::size_t l, double q, double p) {
    const double dq = q - q_mean[l], dp = p - p_mean[l];
    qq[l] += dq * dq, pp[l] += dp * dp, qp[l] += dq * dp;
  });
  double value = 0;
  for (std::size_t l = 0; l < lanes; ++l) {
    const double deviations = std::sqrt(qq[l] * pp[l]);
    // Rounding alone would make a constant column one with a deviation.
    const double noise = static_cast<double>(batch.rows) * 1e-14;
    const bool related = qq[l] > noise * q_mean[l] * q_mean[l] && pp[l] > noise * p_mean[l] * p_mean[l];
    to.student_mean[c + l] = static_cast<float>(q_mean[l]);
    to.teacher_mean[c + l] = static_cast<float>(p_mean[l]);
    to.slope[c + l] = related ? static_cast<float>(qp[l] / qq[l]) : 0.0f;
    to.steepness[c + l] = related ? static_cast<float>(1 / deviations) : 0.0f;
    value += related ? 1 - qp[l] / deviations : 1.0;
  }
  return value;
}

}  // namespace detail

/// Value, and the gradient by the student's logits where batch.gradient has an array: over it, or, with
/// batch.add_to_gradient, added to it, as after the losses of rows. Reads each logit five times. Of the batch it takes
/// rows, classes, strides and groups, float logits without infinities but masks (minus infinity, probability 0). The
/// same bits for any number of threads. Throws argument_error for options, arrays, scratch and fields of the batch that
/// it does not take, and non_finite_error, which names the row: nothing is written then.
inline double dist_columns_forward_backward(const parallel& par, const formula::logit_batch<float>& batch,
                                            const dist_columns& loss, std::span<std::byte> scratch) {
  using namespace detail;
  constexpr std::size_t width = native_width;
  loss.validate();
  if (batch.rows == 0) return 0;
  kd::detail::require_columns(batch);
  const std::size_t need = dist_columns_scratch(batch.rows, batch.classes);
  if (scratch.size() < need)
    reject_argument(loss.name, text("scratch must have ", need, " bytes"), scratch.size(), "ask dist_columns_scratch");
  const std::size_t rows = batch.rows, classes = batch.classes, columns = classes + width;
  const std::size_t past = reinterpret_cast<std::uintptr_t>(scratch.data()) % 64;
  auto* const values = reinterpret_cast<double*>(scratch.data() + (past == 0 ? 0 : 64 - past));  // of strips of columns
  auto* const students = reinterpret_cast<softened_row*>(values + columns);
  auto* const teachers = students + rows;
  auto* const floats = reinterpret_cast<float*>(teachers + rows);
  const column_statistics statistics{floats, floats + columns, floats + 2 * columns, floats + 3 * columns};
  const float T = loss.temperature, teacher_T = loss.teacher_temperature == 0 ? T : loss.teacher_temperature;
  const exponential_scale scale(T), teacher_scale(teacher_T);

  const auto student_row = [&](std::size_t row) { return row_at(batch.student, classes, batch.group_rows, row); };
  const auto teacher_row = [&](std::size_t row) { return row_at(batch.teacher, classes, batch.group_rows, row); };
  par.for_each(rows, [&](std::size_t row) {
    students[row] = soften_row<width>(student_row(row), classes, scale);
    teachers[row] = soften_row<width>(teacher_row(row), classes, teacher_scale);
  });
  for (std::size_t row = 0; row < rows; ++row)
    for (const auto& [side, of] : {std::pair{"student", students[row]}, std::pair{"teacher", teachers[row]}})
      if (std::isnan(of.unit))
        throw non_finite_error(
            text(loss.name, ": ", side, " logits of row ", row,
                 " have a NaN, a plus infinity, or no class that is not masked; nothing was written"));

  const std::size_t strips = (classes + width - 1) / width;
  par.for_each(strips, [&](std::size_t strip) {
    values[strip] = relate_columns<width>(batch, strip * width, students, teachers, scale, teacher_scale, statistics);
  });
  double value = 0;
  for (std::size_t strip = 0; strip < strips; ++strip) value += values[strip];
  const double n = static_cast<double>(classes), squared = loss.times_temperature_squared ? double{T} * T : 1.0;
  if (batch.gradient.data == nullptr) return loss.weight * squared * value / n;

  using vector = vector_of<width>;
  const auto factor = static_cast<float>(loss.weight * squared / (double{T} * n));
  par.for_each(rows, [&](std::size_t row) {
    const auto at = [&](std::size_t c, vector& q) {
      q = softened<width>(student_row(row), c, classes, students[row], scale);
      const vector p = softened<width>(teacher_row(row), c, classes, teachers[row], teacher_scale);
      return load<width>(statistics.steepness + c) *
             (load<width>(statistics.slope + c) * (q - load<width>(statistics.student_mean + c)) -
              (p - load<width>(statistics.teacher_mean + c)));
    };
    double sum = 0;  // of q g
    vector q;
    for (std::size_t c = 0; c < classes; c += width) {
      const vector g = at(c, q);
      float products[width];
      store(products, q * g);
      for (std::size_t l = 0; l < std::min(width, classes - c); ++l) sum += double{products[l]};
    }
    float* const d = row_at(batch.gradient, classes, batch.group_rows, row);
    const auto mean = static_cast<float>(sum);
    for (std::size_t c = 0; c < classes; c += width) {
      const vector g = at(c, q);
      float values_of[width];
      store(values_of, q * (g - mean) * factor);
      for (std::size_t l = 0; l < std::min(width, classes - c); ++l)
        d[c + l] = batch.add_to_gradient ? d[c + l] + values_of[l] : values_of[l];
    }
  });
  return loss.weight * squared * value / n;
}

}  // namespace kd::inline KD_ABI::cpu
