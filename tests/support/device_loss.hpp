/// A batch of logits, the fused losses of the CUDA device on it, and what must come out.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kd/cuda/cross_entropy.hpp"
#include "kd/cuda/distillation.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded_array.hpp"
#include "support/loss_definition.hpp"
#include "support/loss_edge_rows.hpp"

namespace kd_test {

using kd::cuda::loss_variant;
using kd::kernel::bfloat16;

struct loss_batch {
  std::size_t rows = 0, classes = 0;
  std::vector<float> student, teacher;
  std::vector<std::int32_t> labels;
};

inline loss_batch random_batch(std::size_t rows, std::size_t classes, std::uint32_t which) {
  loss_batch b{
      rows, classes, spread_logits(rows * classes, 8, which), spread_logits(rows * classes, 14, which + 1), {}};
  for (std::size_t row = 0; row < rows; ++row) b.labels.push_back(static_cast<std::int32_t>(row * 31 % classes));
  return b;
}

/// The edge row as row `at` of a batch whose other rows are plain.
inline loss_batch batch_around(const loss_edge_row& edge, std::size_t rows, std::size_t at) {
  const std::size_t classes = edge.student.size();
  loss_batch b = random_batch(rows, classes, 11);
  std::copy(edge.student.begin(), edge.student.end(), b.student.begin() + static_cast<std::ptrdiff_t>(at * classes));
  std::copy(edge.teacher.begin(), edge.teacher.end(), b.teacher.begin() + static_cast<std::ptrdiff_t>(at * classes));
  b.labels[at] = edge.label;
  return b;
}

/// The batch as a device with logits of type Logit sees it.
template <class Logit>
loss_batch rounded(loss_batch b) {
  b.student = to_floats(rounded_to<Logit>(b.student));
  b.teacher = to_floats(rounded_to<Logit>(b.teacher));
  return b;
}

inline std::vector<loss_variant> variants_for(std::size_t classes) {
  std::vector<loss_variant> variants = {loss_variant::block_per_row};
  if (classes <= 1024) variants.push_back(loss_variant::registers);
  if (classes <= 32) variants.push_back(loss_variant::one_block);
  return variants;
}

enum class gradient { apart, in_place, none };

/// How a test calls a loss.
struct loss_call {
  loss_variant variant = loss_variant::automatic;
  gradient to = gradient::apart;
  bool teacher = true;
  std::size_t shift = 0;           // of all logits off their alignment
  std::size_t gradient_shift = 0;  // of the gradient, beside that
  kd::kernel::loss_sums before = {};
};

struct loss_outcome {
  kd::kernel::loss_sums sums;
  std::vector<float> d_student;  // empty where none was asked for
};

/// Runs the loss on arrays with guards; the gradient is NaN before. The logits are checked to be unchanged.
template <class Logit>
loss_outcome run_loss(const loss_batch& b, const kd::distillation& options, const loss_call& call = {}) {
  const kd::cuda::stream s;
  const std::size_t size = b.rows * b.classes;
  const auto z = rounded_to<Logit>(b.student), t = rounded_to<Logit>(b.teacher);
  guarded_array<Logit> student(s, z, call.shift), teacher(s, t, call.shift);
  guarded_array<Logit> apart(s, call.to == gradient::apart ? size : 0, call.shift + call.gradient_shift);
  guarded_array<std::int32_t> labels(s, b.labels);
  guarded_array<float> numbers(s, std::vector<float>{options.temperature, options.kd_weight, options.ce_weight});
  guarded_array<std::byte> scratch(s, kd::cuda::distillation_scratch(b.rows, b.classes));
  guarded_array<kd::kernel::loss_sums> sums(s, std::vector<kd::kernel::loss_sums>{call.before});
  Logit* const d_student = call.to == gradient::none       ? nullptr
                           : call.to == gradient::in_place ? student.data()
                                                           : apart.data();
  if (call.teacher)
    kd::cuda::distillation_forward_backward(s, b.rows, b.classes, static_cast<const Logit*>(student.data()),
                                            static_cast<const Logit*>(teacher.data()), labels.data(), numbers.data(),
                                            d_student, scratch.data(), sums.data(), call.variant);
  else
    kd::cuda::cross_entropy_forward_backward(s, b.rows, b.classes, static_cast<const Logit*>(student.data()),
                                             labels.data(), d_student, scratch.data(), sums.data(), call.variant);
  scratch.values();
  if (call.to != gradient::in_place) REQUIRE(same_bits(student.values(), z));
  REQUIRE(same_bits(teacher.values(), t));
  loss_outcome out{sums.values()[0], {}};
  if (call.to == gradient::apart) out.d_student = to_floats(apart.values());
  if (call.to == gradient::in_place) out.d_student = to_floats(student.values());
  return out;
}

/// Rows whose largest logit, the first of equals, is the label; and rows where student and teacher have it in common.
inline std::size_t first_largest(const std::vector<float>& logits, std::size_t row, std::size_t classes) {
  const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(row * classes);
  return static_cast<std::size_t>(std::max_element(begin, begin + static_cast<std::ptrdiff_t>(classes)) - begin);
}

/// Requires value, counts and gradient to be those of the float64 definition on the same (rounded) logits. The value's
/// tolerance: an exponential is within 1e-7, which T^2 multiplies; that of the gradient is relative to the largest that
/// a row could have, plus the rounding of its own format.
template <class Logit>
void require_definition(const loss_batch& batch, const kd::distillation& options, const loss_outcome& got,
                        bool teacher = true) {
  const loss_batch b = rounded<Logit>(batch);
  const double T = teacher ? double{options.temperature} : 1, n = static_cast<double>(b.rows);
  const double kd_weight = teacher ? double{options.kd_weight} : 0, ce_weight = teacher ? double{options.ce_weight} : 1;
  const auto want =
      define_distillation(b.rows, b.classes, b.student.data(), teacher ? b.teacher.data() : b.student.data(),
                          b.labels.data(), T, kd_weight, ce_weight);
  const kd::kernel::loss_sums& sums = got.sums;
  REQUIRE(sums.fault_kind == 0);
  REQUIRE(sums.rows == b.rows);
  REQUIRE(sums.steps == 1);
  const double tolerance = 1e-6 + 3e-7 * T * T;
  REQUIRE(close(sums.cross_entropy / n, want.cross_entropy, 1e-6));
  REQUIRE(close(sums.total / n, want.total, teacher ? tolerance : 1e-6));
  REQUIRE(close(sums.kd / n, teacher ? want.kd : 0, tolerance));
  REQUIRE(close(sums.soft_cross_entropy / n, teacher ? want.soft_cross_entropy : 0, tolerance));
  std::size_t correct = 0, agrees = 0;
  for (std::size_t row = 0; row < b.rows; ++row) {
    const std::size_t largest = first_largest(b.student, row, b.classes);
    correct += largest == static_cast<std::size_t>(b.labels[row]);
    agrees += teacher && largest == first_largest(b.teacher, row, b.classes);
  }
  REQUIRE(sums.correct == static_cast<double>(correct));
  REQUIRE(sums.agrees == static_cast<double>(agrees));
  if (got.d_student.empty()) return;
  REQUIRE(got.d_student.size() == b.rows * b.classes);
  const double largest = (ce_weight + kd_weight * T) / n, format = sizeof(Logit) == 4 ? 0 : rounding<Logit>;
  REQUIRE(near(got.d_student, want.d_student, {.absolute = 1e-6 * largest, .relative = format}, "d_student"));
}

}  // namespace kd_test
