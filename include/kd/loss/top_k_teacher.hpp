/// A teacher of whom only the likeliest classes were kept, as the rows of logits that every loss takes.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/cpu/detail/logit_formats.hpp"
#include "kd/cpu/detail/loss_call.hpp"
#include "kd/cpu/device.hpp"
#include "kd/formula/logit_batch.hpp"
#include "kd/formula/top_k_rows.hpp"
#include "kd/loss/require_arrays.hpp"

namespace kd::inline KD_ABI {

using formula::top_k_rest;
using formula::top_k_rows;

namespace detail {

/// What the k have of a row's probability.
template <class Value, class Index>
double kept_probability(const top_k_rows<Value, Index>& from, std::size_t row) {
  const Value* const values = cpu::detail::row_at(from.values, from.k, 0, row);
  double sum = 0;
  for (std::size_t i = 0; i < from.k; ++i) sum += std::exp(double{cpu::detail::to_float(values[i])});
  return sum;
}

/// Throws argument_error for a class that is none or stands twice in the row, and, where values must be
/// log-probabilities, for probabilities that sum to more than 1.
template <class Value, class Index>
void require_top_k_row(const char* name, const top_k_rows<Value, Index>& from, std::size_t row) {
  const Index* const indices = cpu::detail::row_at(from.indices, from.k, 0, row);
  std::array<Index, top_k_rows<>::most> sorted;
  for (std::size_t i = 0; i < from.k; ++i) {
    if (indices[i] < 0 || static_cast<std::uint64_t>(indices[i]) >= from.classes)
      reject_argument(name, text("indices of row ", row, " must lie in [0,", from.classes, ")"), indices[i],
                      "check the vocabulary");
    sorted[i] = indices[i];
  }
  const auto end = sorted.begin() + static_cast<std::ptrdiff_t>(from.k);
  std::sort(sorted.begin(), end);
  if (const auto twice = std::adjacent_find(sorted.begin(), end); twice != end)
    reject_argument(name, text("indices of row ", row, " must differ"), text(*twice, " twice"), "name each class once");
  if (from.rest == top_k_rest::masked) return;
  if (const double sum = kept_probability(from, row); sum > formula::most_kept_probability)
    reject_argument(name, text("probabilities of row ", row, " must sum to at most 1"), sum,
                    "pass log-probabilities, or mask the rest");
}

}  // namespace detail

/// Writes the teacher's rows, [rows,classes] logits, for logit_batch::teacher: masked or spread. One bucket is no row
/// of logits: see top_k_loss.hpp. A value that is NaN stays one, so that the loss names row and class.
///
/// Throws argument_error for k outside [1, 256] or above the classes, null pointers, overlapping rows, indices that are
/// no classes or stand twice in a row, and, where the rest is spread, probabilities that sum to more than 1; nothing is
/// written then.
template <class Value, class Index>
void expand_top_k(const top_k_rows<Value, Index>& from, const formula::row_array<float>& to,
                  const cpu::device& device = {}) {
  using cpu::detail::row_at;
  constexpr const char* name = "kd::expand_top_k";
  constexpr float masked = -std::numeric_limits<float>::infinity();
  if (from.rows == 0) return;
  detail::require_expansion(name, from, to);
  for (std::size_t row = 0; row < from.rows; ++row) detail::require_top_k_row(name, from, row);
  device.threads().for_each(from.rows, [&](std::size_t row) {
    float rest = masked;
    if (from.rest == top_k_rest::spread && from.k < from.classes) {
      const double each = (1 - detail::kept_probability(from, row)) / static_cast<double>(from.classes - from.k);
      if (each > 0) rest = static_cast<float>(std::log(each));
    }
    float* const out = row_at(to, from.classes, 0, row);
    std::fill_n(out, from.classes, rest);
    const Index* const indices = row_at(from.indices, from.k, 0, row);
    const Value* const values = row_at(from.values, from.k, 0, row);
    for (std::size_t i = 0; i < from.k; ++i) out[indices[i]] = cpu::detail::to_float(values[i]);
  });
}

}  // namespace kd::inline KD_ABI
