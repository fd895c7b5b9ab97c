/// The fused loss of rows of few classes: one row per vector lane.
///
/// The rows of a block are transposed into [classes][Width], so that every step (maxima, exponentials, logarithms)
/// works on whole vectors however few the classes, and no sum across lanes is needed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kd/core/abi.hpp"
#include "kd/cpu/detail/loss_row.hpp"
#include "kd/cpu/exponential.hpp"

namespace kd::inline KD_ABI::cpu::detail {

/// Rows of at most this many classes go lane by lane.
inline constexpr std::size_t loss_block_classes = 64;

/// to[c * Width + l] = from[l * classes + c]; lanes beyond `rows` repeat the last row, so that they hold finite work.
template <std::size_t Width>
inline void rows_to_lanes(const float* from, std::size_t rows, std::size_t classes, float* to) {
  for (std::size_t l = 0; l < Width; ++l) {
    const float* row = from + std::min(l, rows - 1) * classes;
    for (std::size_t c = 0; c < classes; ++c) to[c * Width + l] = row[c];
  }
}

/// The rows [first, first + rows), rows <= Width: terms into out[0..rows), gradients unless d_student is null, none for
/// rows at fault.
template <std::size_t Width, student_exponentials Kind, bool Teacher>
inline void loss_of_block(const loss_arguments& a, std::size_t first, std::size_t rows, loss_row* out) {
  using vector = vector_of<Width>;
  using integers = integers_of<Width>;
  alignas(64) float z[loss_block_classes * Width];
  alignas(64) float t[Teacher ? loss_block_classes * Width : 1];
  alignas(64) float hard[Kind == student_exponentials::separate ? loss_block_classes * Width : 1];
  rows_to_lanes<Width>(a.student + first * a.classes, rows, a.classes, z);
  if constexpr (Teacher) rows_to_lanes<Width>(a.teacher + first * a.classes, rows, a.classes, t);

  vector z_max = splat<Width>(std::numeric_limits<float>::lowest()), t_max = z_max;
  integers z_class = {}, t_class = {};
  for (std::size_t c = 0; c < a.classes; ++c) {
    const integers index = static_cast<std::int32_t>(c) + integers{};
    const vector zc = load<Width>(z + c * Width);
    z_class = zc > z_max ? index : z_class;
    z_max = larger(zc, z_max);
    if constexpr (Teacher) {
      const vector tc = load<Width>(t + c * Width);
      t_class = tc > t_max ? index : t_class;
      t_max = larger(tc, t_max);
    }
  }

  const exponential_scale scale(a.temperature);
  constexpr exponential_scale hard_scale(1.0f);
  vector z_sum = {}, hard_sum = {}, t_sum = {}, gap = {}, energy = {};
  for (std::size_t c = 0; c < a.classes; ++c) {
    const vector dz = load<Width>(z + c * Width) - z_max;
    const vector ez = exp_nonpositive<Width>(dz, scale);
    store(z + c * Width, ez);
    z_sum += ez;
    if constexpr (Kind == student_exponentials::squared) hard_sum += ez * ez;
    if constexpr (Kind == student_exponentials::separate) {
      const vector h = exp_nonpositive<Width>(dz, hard_scale);
      store(hard + c * Width, h);
      hard_sum += h;
    }
    if constexpr (Teacher) {
      const vector dt = load<Width>(t + c * Width) - t_max;
      const auto masked = dt < scale.underflow;
      const vector x = masked ? splat<Width>(scale.zero) : dt;
      const vector et = exp_clamped<Width>(x, scale);
      store(t + c * Width, et);
      t_sum += et;
      energy += et * x;
      const vector difference = dt - dz;  // before the division by T, see read_tile
      gap += et * (masked ? vector{} : difference);
    }
  }
  if constexpr (Kind == student_exponentials::shared) hard_sum = z_sum;

  const vector hard_log = log_positive<Width>(hard_sum);
  vector kd = {}, entropy = {};
  if constexpr (Teacher) {
    const auto inverse = static_cast<float>(scale.inverse_temperature());
    kd = gap * inverse / t_sum - log_positive<Width>(t_sum / z_sum);
    entropy = log_positive<Width>(t_sum) - energy * inverse / t_sum;
  }
  bool finite[Width] = {};
  for (std::size_t l = 0; l < rows; ++l) {
    const std::int32_t label = a.labels[first + l];
    const float label_logit = a.student[(first + l) * a.classes + static_cast<std::size_t>(label)];
    out[l] = {double{hard_log[l]} + (double{z_max[l]} - label_logit), double{kd[l]}, double{kd[l]} + double{entropy[l]},
              z_class[l] == label, Teacher && z_class[l] == t_class[l]};
    finite[l] = out[l].finite();
  }
  if (!a.d_student) return;

  const float ce = a.ce_weight / static_cast<float>(a.rows);
  const vector hard_factor = ce / hard_sum;
  const vector soft_factor = a.kd_weight * a.temperature / static_cast<float>(a.rows) / z_sum;
  const vector ratio = z_sum / t_sum;  // exactly 1 for equal rows
  for (std::size_t c = 0; c < a.classes; ++c) {
    const vector ez = load<Width>(z + c * Width);
    vector h = ez;
    if constexpr (Kind == student_exponentials::squared) h = ez * ez;
    if constexpr (Kind == student_exponentials::separate) h = load<Width>(hard + c * Width);
    vector d = h * hard_factor;
    if constexpr (Teacher) d += (ez - load<Width>(t + c * Width) * ratio) * soft_factor;
    store(z + c * Width, d);
  }
  for (std::size_t l = 0; l < rows; ++l) {
    if (!finite[l]) continue;
    z[static_cast<std::size_t>(a.labels[first + l]) * Width + l] -= ce;
    float* d = a.d_student + (first + l) * a.classes;
    for (std::size_t c = 0; c < a.classes; ++c) d[c] = z[c * Width + l];
  }
}

}  // namespace kd::inline KD_ABI::cpu::detail
