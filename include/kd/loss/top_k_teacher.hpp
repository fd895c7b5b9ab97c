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
#include "kd/loss/require_arrays.hpp"

namespace kd::inline KD_ABI {

/// What becomes of the classes that were not kept. Anshumann et al.: Sparse logit sampling, arXiv:2503.16870, section
/// 3, has both, and shows that renormalised ones make a student too sure.
enum class top_k_rest {
  renormalised,  ///< they are masked, and the k share all of the probability: values are logits or log-probabilities
  spread,        ///< they share evenly what the k leave of 1: values are log-probabilities at a temperature of 1
};

/// For each row k different classes, in any order, and their values; rows may lie apart.
template <class Value = float, class Index = std::int32_t>
struct top_k_rows {
  static constexpr std::size_t most = 256;

  std::size_t rows = 0, classes = 0, k = 0;
  formula::row_array<const Index> indices = {};
  formula::row_array<const Value> values = {};
  top_k_rest rest = top_k_rest::renormalised;
};

namespace detail {

/// Throws argument_error for a class that is none, or that stands twice in the row.
template <class Index>
void require_top_k_indices(std::size_t row, const Index* indices, std::size_t k, std::size_t classes) {
  std::array<Index, top_k_rows<>::most> sorted;
  for (std::size_t i = 0; i < k; ++i) {
    if (indices[i] < 0 || static_cast<std::uint64_t>(indices[i]) >= classes)
      reject_argument("kd::expand_top_k", text("indices of row ", row, " must lie in [0,", classes, ")"), indices[i],
                      "check the vocabulary");
    sorted[i] = indices[i];
  }
  const auto end = sorted.begin() + static_cast<std::ptrdiff_t>(k);
  std::sort(sorted.begin(), end);
  if (const auto twice = std::adjacent_find(sorted.begin(), end); twice != end)
    reject_argument("kd::expand_top_k", text("indices of row ", row, " must differ"), text(*twice, " twice"),
                    "name each class once");
}

}  // namespace detail

/// Writes the teacher's rows, [rows,classes] logits, for logit_batch::teacher. A value that is NaN stays one, so that
/// the loss names row and class.
///
/// Two other conventions are no rows of logits, and no loss of kd has them: probabilities that are dropped without
/// renormalising sum to less than 1, and one bucket for the tail merges classes of the student.
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
  if (from.k == 0 || from.k > from.most || from.k > from.classes)
    reject_argument(name, text("k must lie in [1,", std::min(from.most, from.classes), "]"), from.k,
                    "keep fewer classes, or pass the whole row to the loss");
  if (from.indices.data == nullptr || from.values.data == nullptr || to.data == nullptr)
    reject_argument(name, "indices, values and the rows to write must not be null", "a null pointer",
                    "pass [rows,k], [rows,k] and [rows,classes]");
  (void)detail::range_of(name, "indices", from.indices, from.k, from.rows, 0);
  (void)detail::range_of(name, "values", from.values, from.k, from.rows, 0);
  (void)detail::range_of(name, "logits", to, from.classes, from.rows, 0);

  // The share of each class that was not kept.
  const auto rest_of = [&](std::size_t row) {
    if (from.rest == top_k_rest::renormalised || from.k == from.classes) return masked;
    double sum = 0;
    for (std::size_t i = 0; i < from.k; ++i)
      sum += std::exp(double{cpu::detail::to_float(row_at(from.values, from.k, 0, row)[i])});
    if (sum > 1 + 1e-3)
      reject_argument(name, text("probabilities of row ", row, " must sum to at most 1"), sum,
                      "pass log-probabilities, or renormalise");
    const double left = (1 - sum) / static_cast<double>(from.classes - from.k);
    return left > 0 ? static_cast<float>(std::log(left)) : masked;
  };
  for (std::size_t row = 0; row < from.rows; ++row) {
    detail::require_top_k_indices(row, row_at(from.indices, from.k, 0, row), from.k, from.classes);
    (void)rest_of(row);
  }
  device.threads().for_each(from.rows, [&](std::size_t row) {
    float* const out = row_at(to, from.classes, 0, row);
    std::fill_n(out, from.classes, rest_of(row));
    const Index* const indices = row_at(from.indices, from.k, 0, row);
    const Value* const values = row_at(from.values, from.k, 0, row);
    for (std::size_t i = 0; i < from.k; ++i) out[indices[i]] = cpu::detail::to_float(values[i]);
  });
}

}  // namespace kd::inline KD_ABI
