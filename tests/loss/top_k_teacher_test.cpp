#include "kd/loss/top_k_teacher.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "kd/formula/jensen_shannon.hpp"
#include "kd/forward_backward.hpp"
#include "kd/loss/distillation.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/loss_definitions.hpp"
#include "support/loss_edge_rows.hpp"
#include "support/message.hpp"

using namespace kd_test;
using kd::top_k_rest;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

std::vector<double> log_softmax(const std::vector<double>& logits) {
  double sum = 0;
  const double max = *std::max_element(logits.begin(), logits.end());
  for (const double x : logits) sum += std::exp(x - max);
  std::vector<double> out;
  for (const double x : logits) out.push_back(x - max - std::log(sum));
  return out;
}

/// Logits of rows, and of each the k largest, in falling order.
struct kept_rows {
  std::size_t rows, classes, k;
  std::vector<float> student, teacher, values;
  std::vector<std::int64_t> indices;
  std::vector<std::int32_t> labels;

  kept_rows(std::size_t rows_, std::size_t classes_, std::size_t k_)
      : rows(rows_),
        classes(classes_),
        k(k_),
        student(spread_logits(rows * classes, 8, 1)),
        teacher(spread_logits(rows * classes, 14, 2)) {
    for (std::size_t row = 0; row < rows; ++row) {
      const auto p = log_softmax(teacher_row(row));
      std::vector<std::int64_t> order(classes);
      std::iota(order.begin(), order.end(), 0);
      const auto at = [&](std::int64_t c) { return p[static_cast<std::size_t>(c)]; };
      std::sort(order.begin(), order.end(), [&](auto a, auto b) { return at(a) > at(b) || (at(a) == at(b) && a < b); });
      for (std::size_t i = 0; i < k; ++i) {
        indices.push_back(order[i]);
        values.push_back(static_cast<float>(p[static_cast<std::size_t>(order[i])]));
      }
      labels.push_back(static_cast<std::int32_t>(row * 31 % classes));
    }
  }
  std::vector<double> teacher_row(std::size_t row) const { return row_of(teacher, row); }
  std::vector<double> row_of(const std::vector<float>& x, std::size_t row) const {
    const auto begin = x.begin() + static_cast<std::ptrdiff_t>(row * classes);
    return {begin, begin + static_cast<std::ptrdiff_t>(classes)};
  }
  kd::top_k_rows<float, std::int64_t> arrays(top_k_rest rest) const {
    return {
        .rows = rows, .classes = classes, .k = k, .indices = {indices.data()}, .values = {values.data()}, .rest = rest};
  }
  /// The distribution that a policy means, from its definition: log p of row `row`.
  std::vector<double> defined(top_k_rest rest, std::size_t row) const {
    double kept = 0;
    for (std::size_t i = 0; i < k; ++i) kept += std::exp(double{values[row * k + i]});
    const double each = rest == top_k_rest::spread ? (1 - kept) / static_cast<double>(classes - k) : 0;
    std::vector<double> out(classes, std::log(each));
    for (std::size_t i = 0; i < k; ++i)
      out[static_cast<std::size_t>(indices[row * k + i])] =
          values[row * k + i] - (rest == top_k_rest::masked ? std::log(kept) : 0);
    return out;
  }
};

}  // namespace

TEST_CASE("top_k_teacher: losses are those of the distribution that the policy means", "[loss][top_k]") {
  for (const auto& [classes, k] : {std::pair{7u, 1u}, {7u, 3u}, {100u, 20u}, {3000u, 256u}})
    for (const top_k_rest rest : {top_k_rest::masked, top_k_rest::spread})
      for (const float T : {1.0f, 4.0f}) {
        CAPTURE(classes, k, static_cast<int>(rest), T);
        const kept_rows b(5, classes, k);
        std::vector<float> teacher(b.rows * (classes + 2), 7.0f), gradient(b.rows * classes);
        kd::expand_top_k(b.arrays(rest), {teacher.data(), classes + 2});
        const kd::distillation loss{.temperature = T, .kd_weight = 0.5f, .ce_weight = 0.5f};
        const kd::loss_terms got =
            kd::forward_backward(loss, kd::logit_batch<float>{.rows = b.rows,
                                                              .classes = classes,
                                                              .student = {b.student.data()},
                                                              .teacher = {teacher.data(), classes + 2},
                                                              .labels = {b.labels.data()},
                                                              .gradient = {gradient.data()}});
        double total = 0;
        std::vector<double> d_student;
        for (std::size_t row = 0; row < b.rows; ++row) {
          const auto want = define_loss(loss.formula(), b.row_of(b.student, row), b.defined(rest, row),
                                        static_cast<std::size_t>(b.labels[row]));
          total += want.total / static_cast<double>(b.rows);
          for (const double d : want.d_student) d_student.push_back(d / static_cast<double>(b.rows));
          CHECK(teacher[row * (classes + 2) + classes] == 7.0f);  // between the rows
        }
        CHECK(near(got.total, total, {.relative = 1e-5, .scale_at_least = 1}));
        CHECK(near(gradient, d_student, {.absolute = 2e-6}, "d_student"));
      }
}

TEST_CASE("top_k_teacher: all classes kept are the teacher, whose log-probabilities are as good as its logits",
          "[loss][top_k]") {
  constexpr std::size_t classes = 50;
  const kept_rows b(4, classes, classes);
  std::vector<float> log_p(b.rows * classes);
  kd::expand_top_k(b.arrays(top_k_rest::spread), {log_p.data()});
  for (std::size_t row = 0; row < b.rows; ++row) {
    const auto want = log_softmax(b.teacher_row(row));
    CHECK(near(std::vector<float>(log_p.begin() + static_cast<std::ptrdiff_t>(row * classes),
                                  log_p.begin() + static_cast<std::ptrdiff_t>((row + 1) * classes)),
               want, {.relative = 1e-6, .scale_at_least = 1}, "log-probabilities"));
  }
  for (const float T : {1.0f, 4.0f}) {
    const kd::distillation_with<kd::formula::jensen_shannon> loss{.temperature = T};
    const auto run = [&](const std::vector<float>& teacher, std::vector<float>& gradient) {
      return kd::forward_backward(loss, kd::logit_batch<float>{.rows = b.rows,
                                                               .classes = classes,
                                                               .student = {b.student.data()},
                                                               .teacher = {teacher.data()},
                                                               .labels = {b.labels.data()},
                                                               .gradient = {gradient.data()}})
          .total;
    };
    std::vector<float> of_logits(b.rows * classes), of_probabilities(b.rows * classes);
    CHECK(near(run(log_p, of_probabilities), run(b.teacher, of_logits), {.relative = 1e-5, .scale_at_least = 1}));
    CHECK(near(of_probabilities, of_logits, {.absolute = 2e-6}, "d_student"));
  }
}

TEST_CASE("top_k_teacher: what the k leave is nothing where they sum to 1, and a NaN stays where it is",
          "[loss][top_k]") {
  const std::vector<std::int32_t> indices{2, 0};
  std::vector<float> values{std::log(0.75f), std::log(0.25f)}, out(4);
  const auto expand = [&](top_k_rest rest) {
    kd::expand_top_k(
        kd::top_k_rows<>{
            .rows = 1, .classes = 4, .k = 2, .indices = {indices.data()}, .values = {values.data()}, .rest = rest},
        {out.data()});
  };
  for (const top_k_rest rest : {top_k_rest::masked, top_k_rest::spread}) {
    expand(rest);
    CHECK(out[0] == values[1]);
    CHECK(out[2] == values[0]);
    CHECK(out[1] < -15);
    CHECK(out[3] == out[1]);
  }
  values[0] = std::numeric_limits<float>::quiet_NaN();
  expand(top_k_rest::spread);
  CHECK(std::isnan(out[2]));
  CHECK(out[1] == -infinity);
}

TEST_CASE("top_k_teacher: what cannot be is named with its row, and nothing is written", "[loss][top_k][errors]") {
  std::vector<std::int32_t> indices{0, 1, 2, 3};
  std::vector<float> values(4, std::log(0.25f)), out(10, 7.0f);
  kd::top_k_rows<> rows{.rows = 2, .classes = 5, .k = 2, .indices = {indices.data()}, .values = {values.data()}};
  const auto message = [&] {
    const std::string text =
        message_of<kd::argument_error>([&] { kd::expand_top_k(rows, kd::formula::row_array<float>{out.data()}); });
    CHECK(out == std::vector<float>(10, 7.0f));
    return text;
  };
  indices[3] = 5;
  CHECK(holds(message(), "indices of row 1 must lie in [0,5)", "received 5"));
  indices[3] = -1;
  CHECK(holds(message(), "indices of row 1", "received -1"));
  indices[3] = 2;
  CHECK(holds(message(), "indices of row 1 must differ", "2 twice"));
  indices[3] = 3;
  rows.k = 6;
  CHECK(holds(message(), "k must lie in [1,5]", "received 6"));
  rows.k = 0;
  CHECK(holds(message(), "k must lie in [1,5]", "received 0"));
  rows.k = 2;
  rows.values.row_stride = 1;
  CHECK(holds(message(), "row_stride of the values"));
  rows.values.row_stride = 0;
  rows.rest = top_k_rest::spread;
  values[3] = 1;
  CHECK(holds(message(), "probabilities of row 1 must sum to at most 1", "log-probabilities"));
  rows.indices.data = nullptr;
  CHECK(holds(message(), "must not be null"));
}
