/// A teacher's k classes and one for all others: the rows of a batch as k + 1 classes each, for top_k_loss.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "kd/core/abi.hpp"
#include "kd/cpu/detail/logit_formats.hpp"
#include "kd/cpu/detail/loss_call.hpp"
#include "kd/cpu/exponential.hpp"
#include "kd/cpu/simd.hpp"
#include "kd/loss/loss_terms.hpp"
#include "kd/loss/top_k_teacher.hpp"

namespace kd::inline KD_ABI::cpu::detail {

/// A row's classes that were not kept, as the student has them.
struct rest_of_row {
  float max = -std::numeric_limits<float>::infinity();
  double sum = 0;           // of exp((z - max) / T)
  std::size_t largest = 0;  // the first class with max
};

/// A row of the student whose kept classes are looked at one by one, and the others in tiles.
template <class Logit, class Index>
class split_row {
  static constexpr std::size_t width = native_width, tile_classes = 64 * width;
  using vector = vector_of<width>;

 public:
  split_row(const Logit* logits, std::size_t classes, const Index* indices, std::size_t k)
      : logits_(logits), classes_(classes), k_(k) {
    for (std::size_t i = 0; i < k; ++i) kept_[i] = {static_cast<std::size_t>(indices[i]), i};
    std::sort(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(k));
  }

  rest_of_row read(exponential_scale scale) const {
    rest_of_row rest;
    each_tile([&](std::size_t first, std::size_t count, std::size_t, std::size_t, const float* tile) {
      vector max = splat<width>(rest.max);
      for (std::size_t i = 0; i < count; i += width) max = larger(load<width>(tile + i), max);
      const float largest = largest_lane<width>(max);
      if (largest > rest.max) {
        rest.sum *= exp_nonpositive<1>(splat<1>(rest.max - largest), scale)[0];
        rest.largest = first + static_cast<std::size_t>(std::find(tile, tile + count, largest) - tile);
        rest.max = largest;
      }
      // The lowest float: where all is masked so far, minus infinity less it stays that.
      const float from = std::max(rest.max, std::numeric_limits<float>::lowest());
      vector sum = {};
      for (std::size_t i = 0; i < count; i += width) sum += exp_nonpositive<width>(load<width>(tile + i) - from, scale);
      for (std::size_t l = 0; l < width; ++l) rest.sum += sum[l];
    });
    return rest;
  }
  /// @param of_kept, of_rest the gradient by the kept logits, in the order of the indices, and by u
  template <class Gradient>
  void write(const rest_of_row& rest, exponential_scale scale, const float* of_kept, float of_rest, bool add,
             Gradient* gradient) const {
    const auto unit = static_cast<float>(rest.sum > 0 ? double{of_rest} / rest.sum : 0.0);
    const float from = std::max(rest.max, std::numeric_limits<float>::lowest());
    each_tile([&](std::size_t first, std::size_t count, std::size_t kept, std::size_t kept_end, float* tile) {
      for (std::size_t i = 0; i < count; i += width)
        store(tile + i, vector(unit * exp_nonpositive<width>(load<width>(tile + i) - from, scale)));
      for (; kept < kept_end; ++kept) tile[kept_[kept].at - first] = of_kept[kept_[kept].place];
      Gradient* const to = gradient + first;
      for (std::size_t i = 0; i < count; ++i) to[i] = from_float<Gradient>(add ? to_float(to[i]) + tile[i] : tile[i]);
    });
  }

 private:
  struct kept_class {
    std::size_t at, place;
    friend bool operator<(const kept_class& a, const kept_class& b) { return a.at < b.at; }
  };
  /// Calls step(first, count, kept, kept_end, tile): the classes from `first` on as floats, those that were kept, which
  /// are kept_[kept, kept_end), and what fills the last vector, minus infinity.
  template <class Step>
  void each_tile(const Step& step) const {
    alignas(64) float tile[tile_classes];
    std::size_t kept = 0;
    for (std::size_t first = 0; first < classes_; first += tile_classes) {
      const std::size_t count = std::min(tile_classes, classes_ - first), begin = kept;
      for (std::size_t i = 0; i < count; i += width) store(tile + i, load_of<width>(logits_ + first, i, count));
      for (; kept < k_ && kept_[kept].at < first + count; ++kept)
        tile[kept_[kept].at - first] = -std::numeric_limits<float>::infinity();
      step(first, count, begin, kept, tile);
    }
  }

  const Logit* logits_;
  std::size_t classes_, k_;
  std::array<kept_class, top_k_rows<>::most> kept_;
};

/// The rows of a call that are not ignored, as k + 1 classes each.
template <class Batch, class Rows>
struct merged_rows {
  const Batch& batch;
  const Rows& teacher;
  counted_rows rows;
  exponential_scale scale;
  std::size_t k = teacher.k, classes = k + 1;
  std::vector<float> student = std::vector<float>(rows.count * classes), teachers = student, gradient = {};
  std::vector<float> weights = std::vector<float>(rows.count), upstream = weights;
  std::vector<rest_of_row> rest = std::vector<rest_of_row>(rows.count);
  std::vector<std::uint8_t> correct = std::vector<std::uint8_t>(rows.count), agrees = correct;

  auto logits_of(std::size_t i) const { return row_at(batch.student, batch.classes, batch.group_rows, rows[i]); }
  auto indices_of(std::size_t i) const { return row_at(teacher.indices, k, 0, rows[i]); }
  auto split(std::size_t i) const { return split_row(logits_of(i), batch.classes, indices_of(i), k); }

  void read(std::size_t i, double divide_by) {
    constexpr float masked = -std::numeric_limits<float>::infinity();
    const std::size_t row = rows[i];
    const auto* const logits = logits_of(i);
    const auto* const indices = indices_of(i);
    const auto* const values = row_at(teacher.values, k, 0, row);
    float* const z = &student[i * classes];
    float* const t = &teachers[i * classes];
    rest[i] = split(i).read(scale);
    float max = rest[i].max, teacher_max = masked;
    std::size_t largest = rest[i].largest, teacher_largest = batch.classes;
    const auto take = [](float logit, std::size_t c, float& most, std::size_t& at) {
      if (!(logit > most || (logit == most && c < at))) return;
      most = logit;
      at = c;
    };
    for (std::size_t j = 0; j < k; ++j) {
      const auto c = static_cast<std::size_t>(indices[j]);
      z[j] = to_float(logits[c]);
      t[j] = to_float(values[j]);
      take(z[j], c, max, largest);
      take(t[j], c, teacher_max, teacher_largest);
    }
    // Differences from the largest: u is rounded to float, and of large logits nothing would be left of how they
    // differ.
    if (max == masked) max = 0;
    for (std::size_t j = 0; j < k; ++j) z[j] -= max;
    const double log_sum = std::log(rest[i].sum) / scale.inverse_temperature();
    z[k] = rest[i].sum == 0 ? masked : static_cast<float>(double{rest[i].max} - double{max} + log_sum);
    t[k] = masked;
    if (teacher.rest == top_k_rest::one_bucket && k < batch.classes)
      if (const double kept = kd::detail::kept_probability(teacher, row); !(kept >= 1))
        t[k] = static_cast<float>(std::log1p(-kept));
    weights[i] = batch.row_weights ? batch.row_weights[row] : 1.0f;
    const float factor = batch.upstream ? batch.upstream[batch.upstream_per_row ? row : 0] : 1.0f;
    upstream[i] = static_cast<float>(factor / divide_by);
    if (batch.labels.data)
      correct[i] = largest == static_cast<std::size_t>(*row_at(batch.labels, 1, batch.group_rows, row));
    agrees[i] = largest == teacher_largest;
  }

  /// What was found in merged rows, by the names of the batch.
  loss_fault place_of(const loss_fault& fault) const {
    const std::size_t row = rows[fault.row], place = fault.class_index;
    for (std::size_t c = 0; c < batch.classes; ++c) {
      const float logit = to_float(logits_of(fault.row)[c]);
      if (logit != logit) return {loss_fault_kind::student_nan, row, c};
      if (logit == std::numeric_limits<float>::infinity()) return {loss_fault_kind::student_infinite, row, c};
    }
    const auto* const indices = indices_of(fault.row);
    if (place < k) return {fault.kind, row, static_cast<std::size_t>(indices[place])};
    std::size_t c = 0;  // becomes the first of the rest
    while (std::any_of(indices, indices + k, [&](auto index) { return static_cast<std::size_t>(index) == c; })) ++c;
    return {fault.kind, row, c};
  }
};

}  // namespace kd::inline KD_ABI::cpu::detail
