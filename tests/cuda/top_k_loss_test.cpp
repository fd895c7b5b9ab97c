#include "kd/cuda/top_k_loss.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "kd/loss/loss_meter.hpp"
#include "kd/loss/top_k_loss.hpp"
#include "kd/loss/weighted_sum.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded_array.hpp"
#include "support/loss_definitions.hpp"
#include "support/loss_edge_rows.hpp"
#include "support/message.hpp"

using namespace kd_test;
using kd::top_k_rest;

namespace {

template <class Divergence>
auto alone(const Divergence& divergence, float T) {
  return kd::weighted_sum{kd::softening{.temperature = T, .teacher_temperature = 1},
                          kd::weighted_term{0.5f, divergence}};
}

/// Rows of a student, of which k classes in no order were kept of a teacher, with their log-probabilities; and what a
/// batch may have beside that.
struct kept_rows {
  std::size_t rows, classes, k;
  std::vector<float> student, log_p, row_weights, upstream;
  std::vector<std::int64_t> indices, labels;
  kd::divisor divide_by = kd::divisor::rows;
  float before = 7;
  bool add = false;

  kept_rows(std::size_t rows_, std::size_t classes_, std::size_t k_)
      : rows(rows_), classes(classes_), k(k_), student(spread_logits(rows * classes, 8, 1)) {
    const std::vector<float> teacher = spread_logits(rows * classes, 14, 2);
    for (std::size_t row = 0; row < rows; ++row) {
      const auto begin = teacher.begin() + static_cast<std::ptrdiff_t>(row * classes);
      const auto p = log_softmax(std::vector<double>(begin, begin + static_cast<std::ptrdiff_t>(classes)), 1);
      std::vector<std::size_t> order(classes);
      std::iota(order.begin(), order.end(), 0);
      std::sort(order.begin(), order.end(), [&](auto a, auto b) { return p[a] > p[b]; });
      std::reverse(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(k));
      for (std::size_t i = 0; i < k; ++i) {
        indices.push_back(static_cast<std::int64_t>(order[i]));
        log_p.push_back(static_cast<float>(p[order[i]]));
      }
    }
  }
  template <class Batch>
  void fill(Batch& batch) const {
    batch.rows = rows;
    batch.classes = classes;
    batch.divide_by = divide_by;
    batch.upstream_per_row = true;
    batch.add_to_gradient = add;
  }
};

struct outcome {
  kd::loss_meter sums;
  std::vector<float> d_student;
};

template <class Loss>
outcome run(const Loss& loss, const kept_rows& b, top_k_rest rest) {
  const kd::cuda::stream s;
  const auto formula = loss.formula();
  using formula_type = std::remove_const_t<decltype(formula)>;
  guarded_array<float> student(s, b.student), log_p(s, b.log_p), weights(s, b.row_weights), upstream(s, b.upstream);
  guarded_array<float> gradient(s, std::vector<float>(b.student.size(), b.before));
  guarded_array<std::int64_t> indices(s, b.indices), labels(s, b.labels);
  guarded_array<formula_type> in_memory(s, std::vector<formula_type>{formula});
  guarded_array<kd::loss_meter> sums(s, std::vector<kd::loss_meter>{{}});
  guarded_array<std::byte> scratch(s, kd::cuda::top_k_loss_scratch<formula_type>(b.rows, b.k));
  kd::formula::logit_batch<float, float, std::int64_t> batch;
  b.fill(batch);
  batch.student = {student.data()};
  if (!b.labels.empty()) batch.labels = {labels.data()};
  if (!b.row_weights.empty()) batch.row_weights = weights.data();
  if (!b.upstream.empty()) batch.upstream = upstream.data();
  batch.gradient = {gradient.data()};
  kd::cuda::logit_loss_forward_backward(s, batch,
                                        kd::top_k_rows<float, std::int64_t>{.rows = b.rows,
                                                                            .classes = b.classes,
                                                                            .k = b.k,
                                                                            .indices = {indices.data()},
                                                                            .values = {log_p.data()},
                                                                            .rest = rest},
                                        static_cast<const formula_type*>(in_memory.data()), scratch.data(),
                                        sums.data());
  scratch.values();
  return {sums.values()[0], gradient.values()};
}

/// The same of the CPU, which tests/loss/top_k_loss_test.cpp holds to the definitions.
template <class Loss>
kd::loss_terms run_host(const Loss& loss, const kept_rows& b, top_k_rest rest, std::vector<float>& gradient) {
  kd::formula::logit_batch<float, float, std::int64_t> batch;
  b.fill(batch);
  gradient.assign(b.student.size(), b.before);
  batch.student = {b.student.data()};
  if (!b.labels.empty()) batch.labels = {b.labels.data()};
  if (!b.row_weights.empty()) batch.row_weights = b.row_weights.data();
  if (!b.upstream.empty()) batch.upstream = b.upstream.data();
  batch.gradient = {gradient.data()};
  return kd::forward_backward(loss, batch,
                              kd::top_k_rows<float, std::int64_t>{.rows = b.rows,
                                                                  .classes = b.classes,
                                                                  .k = b.k,
                                                                  .indices = {b.indices.data()},
                                                                  .values = {b.log_p.data()},
                                                                  .rest = rest});
}

template <class Loss>
void check(const Loss& loss, const kept_rows& b, top_k_rest rest) {
  CAPTURE(b.rows, b.classes, b.k, static_cast<int>(rest));
  std::vector<float> d_student;
  const kd::loss_terms want = run_host(loss, b, rest, d_student);
  const outcome got = run(loss, b, rest);
  REQUIRE(kd::text_of(got.sums.fault()) == kd::text_of(kd::loss_fault{}));
  const double n = static_cast<double>(want.rows), T = loss.soft.temperature, most = std::max(1.0, T * T);
  REQUIRE(got.sums.rows == want.rows);
  CHECK(near(got.sums.total / n, want.total, {.relative = 1e-5, .scale_at_least = most}));
  for (std::size_t i = 0; i < want.size; ++i)
    CHECK(near(got.sums.values[i] / n, want.list[i].value, {.relative = 1e-5, .scale_at_least = most}));
  CHECK(got.sums.correct == want.accuracy * n);
  CHECK(got.sums.agrees == want.teacher_agreement * n);
  CHECK(near(got.d_student, d_student, {.absolute = 3e-6 * most}, "d_student"));
  CHECK(run(loss, b, rest).d_student == got.d_student);
}

}  // namespace

TEST_CASE("cuda top_k_loss: what the CPU computes, in the same bits each time", "[cuda][top_k]") {
  using namespace kd::formula;
  for (const auto& [classes, k] : {std::pair{7u, 1u}, {7u, 7u}, {100u, 20u}, {3000u, 256u}})
    for (const float T : {0.05f, 1.0f, 4.0f}) {
      const kept_rows b(2, classes, k);
      check(alone(forward_kl{}, T), b, top_k_rest::masked);
      check(alone(forward_kl{}, T), b, top_k_rest::one_bucket);
      check(alone(partial_kl{}, T), b, top_k_rest::masked);
      check(alone(jensen_shannon{.beta = 0.3f}, T), b, top_k_rest::one_bucket);
    }
  kept_rows far(1, 70000, 5);  // two windows of classes, and most of the student in a kept class of the second
  far.indices[0] = 69999;
  far.student[69999] = 30;
  check(alone(forward_kl{}, 2), far, top_k_rest::one_bucket);
}

TEST_CASE("cuda top_k_loss: ignored rows, weights, upstream gradients, and every divisor", "[cuda][top_k]") {
  kept_rows b(6, 50, 6);
  b.labels = {3, -100, b.indices[12], 7, 8, 9};
  b.row_weights = {1, 2, 0.5f, 0, 3, 1};
  b.upstream = {1, 1, 2, 1, -1, 0.5f};
  b.indices[6] = -1;  // of the row that is ignored
  for (std::size_t c = 0; c < 50; ++c) b.student[50 + c] = std::numeric_limits<float>::quiet_NaN();
  using enum kd::divisor;
  for (const kd::divisor by : {rows, valid_rows, weights, one})
    for (const bool add : {false, true}) {
      CAPTURE(static_cast<int>(by), add);
      b.divide_by = by;
      b.add = add;
      b.before = add ? 0.25f : 7;
      check(alone(kd::formula::forward_kl{}, 2), b, top_k_rest::one_bucket);
    }
}

TEST_CASE("cuda top_k_loss: a row at fault is named by its class", "[cuda][top_k][errors]") {
  const auto loss = alone(kd::formula::forward_kl{}, 1);
  const kept_rows good(3, 20, 4);
  const auto fault = [&](const kept_rows& b, top_k_rest rest = top_k_rest::one_bucket) {
    const outcome got = run(loss, b, rest);
    for (std::size_t i = 20; i < 40; ++i)
      if (got.d_student[i] != b.before) FAIL_CHECK("the gradient of the row at fault was written");
    return kd::text_of(got.sums.fault());
  };
  const auto kept = static_cast<std::size_t>(good.indices[4 + 2]);
  std::size_t rest = 0;
  while (std::find(good.indices.begin() + 4, good.indices.begin() + 8, static_cast<std::int64_t>(rest)) !=
         good.indices.begin() + 8)
    ++rest;
  kept_rows b = good;
  b.student[20 + rest] = std::numeric_limits<float>::quiet_NaN();
  CHECK(holds(fault(b), "student", "NaN at row 1, class " + std::to_string(rest)));
  b.student[20 + rest] = std::numeric_limits<float>::infinity();
  CHECK(holds(fault(b), "student", "plus infinity at row 1, class " + std::to_string(rest)));
  b = good;
  b.student[20 + kept] = -std::numeric_limits<float>::infinity();
  CHECK(holds(fault(b), "masked in the student at row 1, class " + std::to_string(kept)));
  b = good;
  for (std::size_t c = 0; c < 20; ++c)
    if (std::find(b.indices.begin() + 4, b.indices.begin() + 8, static_cast<std::int64_t>(c)) == b.indices.begin() + 8)
      b.student[20 + c] = -std::numeric_limits<float>::infinity();
  CHECK(holds(fault(b), "masked in the student at row 1, class " + std::to_string(rest)));
  b = good;
  b.log_p[4 + 2] = std::numeric_limits<float>::quiet_NaN();
  CHECK(holds(fault(b), "teacher", "NaN at row 1, class " + std::to_string(kept)));
  b = good;
  b.indices[4 + 1] = 20;
  CHECK(holds(fault(b), "teacher", "NaN at row 1"));
  b.indices[4 + 1] = b.indices[4];
  CHECK(holds(fault(b), "teacher", "NaN at row 1"));
  b = good;
  b.log_p[4] = 1;
  CHECK(holds(fault(b), "teacher", "NaN at row 1"));
  b = good;
  b.labels = {0, 20, 1};
  CHECK(holds(fault(b), "no class of the logits, it is 20 at row 1"));
}

TEST_CASE("cuda top_k_loss: arguments that do not fit are refused", "[cuda][top_k][errors]") {
  const kd::cuda::stream s;
  const auto formula = alone(kd::formula::forward_kl{}, 1).formula();
  using formula_type = std::remove_const_t<decltype(formula)>;
  guarded_array<float> x(s, std::vector<float>(10, 7)), values(s, std::vector<float>(2, -1));
  guarded_array<std::int32_t> indices(s, std::vector<std::int32_t>{0, 1});
  guarded_array<formula_type> loss(s, std::vector<formula_type>{formula});
  guarded_array<kd::loss_meter> sums(s, std::vector<kd::loss_meter>{{}});
  guarded_array<std::byte> scratch(s, kd::cuda::top_k_loss_scratch<formula_type>(1, 2));
  const kd::formula::logit_batch<float> good = {.rows = 1, .classes = 5, .student = {x.data()}};
  const kd::top_k_rows<> rows = {
      .rows = 1, .classes = 5, .k = 2, .indices = {indices.data()}, .values = {values.data()}};
  const auto message = [&](const kd::formula::logit_batch<float>& batch, const kd::top_k_rows<>& teacher) {
    return message_of<kd::argument_error>([&] {
      kd::cuda::logit_loss_forward_backward(s, batch, teacher, static_cast<const formula_type*>(loss.data()),
                                            scratch.data(), sums.data());
    });
  };
  auto teacher = rows;
  teacher.rest = top_k_rest::spread;
  CHECK(holds(message(good, teacher), "masked or one_bucket"));
  teacher = rows;
  teacher.k = 6;
  CHECK(holds(message(good, teacher), "k must lie in [1,5]"));
  teacher = rows;
  teacher.classes = 6;
  CHECK(holds(message(good, teacher), "1 rows of 5 classes"));
  auto batch = good;
  batch.teacher = {x.data() + 5};
  CHECK(holds(message(batch, rows), "batch.teacher must be null"));
  batch = good;
  batch.gradient = {values.data()};
  CHECK(holds(message(batch, rows), "must not share memory"));
}
