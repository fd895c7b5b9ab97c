/// A batch of logits, the fused losses of the CUDA device on it, and what must come out.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "kd/cuda/logit_loss.hpp"
#include "kd/loss/cross_entropy.hpp"
#include "kd/loss/distillation.hpp"
#include "kd/loss/formula_of.hpp"
#include "kd/loss/loss_meter.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded_array.hpp"
#include "support/loss_definitions.hpp"
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
  std::size_t shift = 0;           // of all logits off their alignment
  std::size_t gradient_shift = 0;  // of the gradient, beside that
  kd::loss_meter before = {};
};

struct loss_outcome {
  kd::loss_meter sums;
  std::vector<float> d_student;  // empty where none was asked for
  std::vector<std::string_view> names;

  /// The sum of a term over the rows.
  double operator[](std::string_view name) const {
    const auto at = std::find(names.begin(), names.end(), name);
    REQUIRE(at != names.end());
    return sums.values[at - names.begin()];
  }
};

/// The arrays of a batch in the device's memory, with guards; the gradient is NaN before.
template <class Logit, class Loss>
struct loss_arrays {
  const loss_batch& b;
  std::vector<Logit> z, t;
  guarded_array<Logit> student, teacher, apart;
  guarded_array<std::int32_t> labels;
  guarded_array<Loss> loss;
  guarded_array<std::byte> scratch;
  guarded_array<kd::loss_meter> sums;
  gradient to;

  loss_arrays(const kd::cuda::stream& s, const loss_batch& batch, const Loss& formula, const loss_call& call)
      : b(batch),
        z(rounded_to<Logit>(b.student)),
        t(rounded_to<Logit>(b.teacher)),
        student(s, z, call.shift),
        teacher(s, t, call.shift),
        apart(s, call.to == gradient::apart ? z.size() : 0, call.shift + call.gradient_shift),
        labels(s, b.labels),
        loss(s, std::vector<Loss>{formula}),
        scratch(s, kd::cuda::logit_loss_scratch<Loss>(b.rows)),
        sums(s, std::vector<kd::loss_meter>{call.before}),
        to(call.to) {}

  /// As a kernel::dense_batch or a formula::logit_batch.
  template <class Batch = kd::kernel::dense_batch<Logit>>
  Batch batch() {
    Batch batch;
    batch.rows = b.rows;
    batch.classes = b.classes;
    batch.student = {student.data()};
    batch.teacher = {teacher.data()};
    batch.labels = {labels.data()};
    if (to != gradient::none) batch.gradient = {to == gradient::in_place ? student.data() : apart.data()};
    return batch;
  }
  /// What the device did, and that it touched nothing else.
  loss_outcome outcome() {
    scratch.values();
    if (to != gradient::in_place) REQUIRE(same_bits(student.values(), z));
    REQUIRE(same_bits(teacher.values(), t));
    loss_outcome out{sums.values()[0], {}, {kd::value_names<Loss>.begin(), kd::value_names<Loss>.end()}};
    if (to == gradient::apart) out.d_student = to_floats(apart.values());
    if (to == gradient::in_place) out.d_student = to_floats(student.values());
    return out;
  }
};

/// Runs a loss on arrays with guards. The logits are checked to be unchanged.
template <class Logit, class Loss>
loss_outcome run_loss(const loss_batch& b, const Loss& options, const loss_call& call = {}) {
  const kd::cuda::stream s;
  loss_arrays<Logit, kd::formula_of<Loss>> arrays(s, b, options.formula(), call);
  kd::cuda::logit_loss_forward_backward(s, arrays.batch(), static_cast<const kd::formula_of<Loss>*>(arrays.loss.data()),
                                        arrays.scratch.data(), arrays.sums.data(), call.variant);
  return arrays.outcome();
}

/// Rows whose largest logit, the first of equals, is the label; and rows where student and teacher have it in common.
inline std::size_t first_largest(const std::vector<float>& logits, std::size_t row, std::size_t classes) {
  const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(row * classes);
  return static_cast<std::size_t>(std::max_element(begin, begin + static_cast<std::ptrdiff_t>(classes)) - begin);
}

/// Requires value, counts and gradient to be those of the float64 definition on the same (rounded) logits. The value's
/// tolerance: an exponential is within 1e-7, which T^2 multiplies; that of the gradient is relative to the largest that
/// a row could have, plus the rounding of its own format.
template <class Logit, class Loss>
void require_definition(const loss_batch& batch, const Loss& options, const loss_outcome& got) {
  constexpr bool teacher = Loss::needs_teacher;
  const loss_batch b = rounded<Logit>(batch);
  double T = 1, kd_weight = 0, ce_weight = 1;
  if constexpr (teacher) {
    T = double{options.temperature};
    kd_weight = double{options.kd_weight};
    ce_weight = double{options.ce_weight};
  }
  const double n = static_cast<double>(b.rows);
  const auto want =
      define_distillation(b.rows, b.classes, b.student.data(), teacher ? b.teacher.data() : b.student.data(),
                          b.labels.data(), T, kd_weight, ce_weight);
  const kd::loss_meter& sums = got.sums;
  REQUIRE(sums.fault_kind == kd::loss_fault_kind::none);
  REQUIRE(sums.rows == b.rows);
  REQUIRE(sums.steps == 1);
  const double tolerance = 1e-6 + 3e-7 * T * T;
  REQUIRE(close(got["cross_entropy"] / n, want.cross_entropy, 1e-6));
  REQUIRE(close(sums.total / n, want.total, teacher ? tolerance : 1e-6));
  if constexpr (teacher) {
    REQUIRE(close(got["kd"] / n, want.kd, tolerance));
    REQUIRE(close(got["soft_cross_entropy"] / n, want.soft_cross_entropy, tolerance));
  }
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
