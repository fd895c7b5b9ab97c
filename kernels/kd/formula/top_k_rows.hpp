/// What was kept of a teacher: the same struct for the CPU, and, passed by value, for kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kd/formula/logit_batch.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// What becomes of the classes that were not kept. Values are log-probabilities at a temperature of 1; where the rest
/// is masked and the loss is not partial_kl, logits do as well. Anshumann et al.: Sparse logit sampling,
/// arXiv:2503.16870, section 3, shows that a k that share all of the probability make a student too sure.
enum class top_k_rest : std::uint32_t {
  masked,      ///< they have no probability: the k share all of it, or, with partial_kl, keep what they have
  spread,      ///< they share evenly what the k leave of 1
  one_bucket,  ///< they are one class, of student and teacher, that has what the k leave of 1
};

/// For each row k different classes, in any order, and their values; rows may lie apart.
template <class Value = float, class Index = std::int32_t>
struct top_k_rows {
  static constexpr std::size_t most = 256;

  std::size_t rows = 0, classes = 0, k = 0;
  row_array<const Index> indices = {};
  row_array<const Value> values = {};
  top_k_rest rest = top_k_rest::masked;
};

/// What probabilities of a row may sum to, where they are those of the classes that were kept.
inline constexpr double most_kept_probability = 1 + 1e-3;

}  // namespace kd::formula::inline KD_FORMULA_ABI
