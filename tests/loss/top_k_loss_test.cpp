#include "kd/loss/top_k_loss.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "golden/loss_golden.hpp"
#include "kd/formula/losses.hpp"
#include "kd/forward_backward.hpp"
#include "kd/loss/distillation.hpp"
#include "kd/loss/weighted_sum.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/loss_definitions.hpp"
#include "support/loss_edge_rows.hpp"
#include "support/message.hpp"
#include "support/numbers.hpp"

using namespace kd_test;
using kd::top_k_rest;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

template <class Divergence>
auto alone(const Divergence& divergence, float T, float teacher_T = 1) {
  return kd::weighted_sum{kd::softening{.temperature = T, .teacher_temperature = teacher_T},
                          kd::weighted_term{0.5f, divergence}};
}

/// Rows of a student, and of a teacher k classes in any order with their log-probabilities.
struct kept_rows {
  std::size_t rows, classes, k;
  std::vector<float> student, log_p;
  std::vector<std::int64_t> indices;

  kept_rows(std::size_t rows_, std::size_t classes_, std::size_t k_, float spread = 8)
      : rows(rows_), classes(classes_), k(k_), student(spread_logits(rows * classes, spread, 1)) {
    const std::vector<float> teacher = spread_logits(rows * classes, 14, 2);
    std::mt19937 random(static_cast<unsigned>(classes + k));
    for (std::size_t row = 0; row < rows; ++row) {
      const auto begin = teacher.begin() + static_cast<std::ptrdiff_t>(row * classes);
      const std::vector<double> p =
          log_softmax(std::vector<double>(begin, begin + static_cast<std::ptrdiff_t>(classes)), 1);
      std::vector<std::size_t> order(classes);
      std::iota(order.begin(), order.end(), 0);
      std::sort(order.begin(), order.end(), [&](auto a, auto b) { return p[a] > p[b]; });
      std::shuffle(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(k), random);
      for (std::size_t i = 0; i < k; ++i) {
        indices.push_back(static_cast<std::int64_t>(order[i]));
        log_p.push_back(static_cast<float>(p[order[i]]));
      }
    }
  }
  kd::top_k_rows<float, std::int64_t> teacher(top_k_rest rest) const {
    return {
        .rows = rows, .classes = classes, .k = k, .indices = {indices.data()}, .values = {log_p.data()}, .rest = rest};
  }
  kd::logit_batch<float> batch(std::vector<float>& gradient) const {
    return {.rows = rows, .classes = classes, .student = {student.data()}, .gradient = {gradient.data()}};
  }
};

/// What a policy means: the k classes and the rest, of student and teacher, as the classes of the divergence.
template <class Loss>
defined_loss define_top_k(const Loss& loss, const kept_rows& b, std::size_t row, top_k_rest rest) {
  using term = typename Loss::template term_at<0>;
  const double T = loss.temperature, scale = loss.times_temperature_squared ? T * T : 1;
  std::vector<traced> z;
  for (std::size_t c = 0; c < b.classes; ++c) z.push_back(traced::variable(b.student[row * b.classes + c]));
  const std::vector<traced> log_q = log_softmax(z, T);
  defined_row<traced> r{z, {}, 0, T, loss.teacher_temperature, smallest_float, {}, {}, {}};
  std::vector<bool> is_kept(b.classes);
  std::vector<double> values;
  double kept = 0;
  r.z.clear();
  for (std::size_t i = row * b.k; i < (row + 1) * b.k; ++i) {
    const auto c = static_cast<std::size_t>(b.indices[i]);
    is_kept[c] = true;
    r.z.push_back(z[c]);
    r.log_q.push_back(log_q[c]);
    values.push_back(b.log_p[i]);
    kept += std::exp(double{b.log_p[i]});
  }
  // Relative to the largest of the rest, so that it does not vanish.
  double largest = -INFINITY;
  for (std::size_t c = 0; c < b.classes; ++c)
    if (!is_kept[c]) largest = std::max(largest, log_q[c].value());
  if (largest > -INFINITY) {
    traced sum = 0;
    for (std::size_t c = 0; c < b.classes; ++c)
      if (!is_kept[c]) sum = sum + exp(log_q[c] - largest);
    r.z.push_back(0);
    r.log_q.push_back(log(sum) + largest);
    values.push_back(rest == top_k_rest::one_bucket ? std::log1p(-kept) : -INFINITY);
  }
  r.t = values;
  r.log_p = log_softmax(values, loss.teacher_temperature);
  const traced value = scale * definition<term>::value(loss.template term<0>(), r);
  const auto d = (double{loss.template weight<0>()} * value).derivatives();
  defined_loss out;
  out.values.push_back(value.value());
  out.total = double{loss.template weight<0>()} * value.value();
  for (const traced& x : z) out.d_student.push_back(d[x.place()]);
  return out;
}

template <class Divergence>
void check_definition(const Divergence& divergence, top_k_rest rest, float teacher_T = 1) {
  for (const auto& [classes, k] : {std::pair{7u, 1u}, {7u, 3u}, {7u, 7u}, {100u, 20u}, {3000u, 256u}})
    for (const float T : {0.05f, 1.0f, 4.0f}) {
      CAPTURE(Divergence::name, classes, k, static_cast<int>(rest), T, teacher_T);
      const kept_rows b(3, classes, k);
      const auto loss = alone(divergence, T, teacher_T);
      std::vector<float> gradient(b.student.size());
      const kd::loss_terms got = kd::forward_backward(loss, b.batch(gradient), b.teacher(rest));
      double total = 0;
      std::vector<double> d_student;
      for (std::size_t row = 0; row < b.rows; ++row) {
        const defined_loss want = define_top_k(loss.formula(), b, row, rest);
        total += want.total / static_cast<double>(b.rows);
        for (const double d : want.d_student) d_student.push_back(d / static_cast<double>(b.rows));
      }
      // Both sides of a difference of probabilities round by float.
      const double scale = T * std::max(1.0f, T);
      CHECK(near(got.total, total, {.relative = 1e-5, .scale_at_least = scale}));
      CHECK(near(gradient, d_student, {.absolute = 3e-6 * std::max(1.0f, T)}, "d_student"));
    }
}

}  // namespace

TEST_CASE("top_k_loss: one bucket agrees with PyTorch's kl_div of k + 1 classes", "[loss][top_k][golden]") {
  using namespace kd_golden;
  std::vector<float> student(loss_student, std::end(loss_student)), gradient(student.size());
  const kd::loss_terms got = kd::forward_backward(
      alone(kd::formula::forward_kl{}, loss_temperature, 1),
      kd::logit_batch<float>{
          .rows = loss_rows, .classes = loss_classes, .student = {student.data()}, .gradient = {gradient.data()}},
      kd::top_k_rows<float, std::int32_t>{.rows = loss_rows,
                                          .classes = loss_classes,
                                          .k = loss_kept,
                                          .indices = {loss_kept_classes},
                                          .values = {loss_kept_log_p},
                                          .rest = top_k_rest::one_bucket});
  std::vector<double> half;  // the weight of `alone`
  for (const double d : forward_kl_one_bucket.d_student) half.push_back(d / 2);
  CHECK(near(got.total, forward_kl_one_bucket.value / 2, {.relative = 1e-6}));
  CHECK(near(gradient, half, {.absolute = 1e-6}, "d_student"));
}

TEST_CASE("top_k_loss: losses are those of the k classes and one for the rest", "[loss][top_k]") {
  using namespace kd::formula;
  for (const top_k_rest rest : {top_k_rest::masked, top_k_rest::one_bucket}) check_definition(forward_kl{}, rest);
  check_definition(partial_kl{}, top_k_rest::masked);
  check_definition(forward_kl{}, top_k_rest::masked, 4);
  check_definition(reverse_kl{}, top_k_rest::one_bucket);
  for (const top_k_rest rest : {top_k_rest::masked, top_k_rest::one_bucket}) {
    check_definition(jensen_shannon{.beta = 0.3f}, rest);
    check_definition(total_variation{}, rest);
  }
}

TEST_CASE("top_k_loss: with the rest masked it is the loss of dense rows", "[loss][top_k]") {
  const kept_rows b(5, 1000, 40);
  std::vector<float> dense(b.student.size()), want(b.student.size()), got(b.student.size());
  kd::expand_top_k(b.teacher(top_k_rest::masked), {dense.data()});
  const auto loss = alone(kd::formula::jensen_shannon{}, 2, 3);
  auto batch = b.batch(want);
  batch.teacher = {dense.data()};
  const kd::loss_terms of_dense = kd::forward_backward(loss, batch);
  const kd::loss_terms of_kept = kd::forward_backward(loss, b.batch(got), b.teacher(top_k_rest::masked));
  CHECK(near(of_kept.total, of_dense.total, {.relative = 1e-6}));
  CHECK(of_kept.teacher_agreement == of_dense.teacher_agreement);
  CHECK(near(got, want, {.absolute = 1e-7}, "d_student"));
}

TEST_CASE("top_k_loss: a batch is the sum of its rows, each with its weight", "[loss][top_k]") {
  constexpr std::size_t classes = 50, k = 6, stride = classes + 3;
  const kept_rows b(6, classes, k);
  const auto loss = alone(kd::formula::forward_kl{}, 2);
  using enum kd::divisor;
  for (const top_k_rest rest : {top_k_rest::one_bucket, top_k_rest::masked})
    for (const kd::divisor by : {rows, valid_rows, weights, one}) {
      CAPTURE(static_cast<int>(rest), static_cast<int>(by));
      std::vector<float> student(b.rows * stride, 99.0f), gradient(b.rows * classes, 0.25f);
      const std::vector<std::int64_t> labels{3, -100, static_cast<std::int64_t>(b.indices[2 * k]), 7, 8, 9};
      const std::vector<float> row_weights{1, 2, 0.5f, 0, 3, 1}, upstream{1, 1, 2, 1, -1, 0.5f};
      for (std::size_t row = 0; row < b.rows; ++row)
        std::copy_n(b.student.data() + row * classes, classes, student.data() + row * stride);
      std::vector<double> row_values(b.rows * 3, 7.0);
      kept_rows odd = b;
      odd.indices[k] = -1;  // of the row that is ignored
      const kd::loss_terms got =
          kd::forward_backward(loss,
                               kd::logit_batch<float, float, std::int64_t>{.rows = b.rows,
                                                                           .classes = classes,
                                                                           .student = {student.data(), stride},
                                                                           .labels = {labels.data()},
                                                                           .row_weights = row_weights.data(),
                                                                           .divide_by = by,
                                                                           .upstream = upstream.data(),
                                                                           .upstream_per_row = true,
                                                                           .gradient = {gradient.data()},
                                                                           .add_to_gradient = true,
                                                                           .row_values = row_values.data()},
                               odd.teacher(rest));
      const double divide_by = by == rows ? 6 : by == valid_rows ? 5 : by == weights ? 5.5 : 1;
      double total = 0, soft = 0, agrees = 0, correct = 0;
      for (std::size_t row = 0; row < b.rows; ++row) {
        const bool ignored = row == 1;
        kept_rows single = b;
        single.rows = 1;
        single.student.assign(b.student.begin() + static_cast<std::ptrdiff_t>(row * classes),
                              b.student.begin() + static_cast<std::ptrdiff_t>((row + 1) * classes));
        single.log_p.erase(single.log_p.begin(), single.log_p.begin() + static_cast<std::ptrdiff_t>(row * k));
        single.indices.erase(single.indices.begin(), single.indices.begin() + static_cast<std::ptrdiff_t>(row * k));
        std::vector<float> d(classes);
        const kd::loss_terms one_row = kd::forward_backward(loss, single.batch(d), single.teacher(rest));
        std::vector<double> want(classes);
        const double weight = ignored ? 0 : double{row_weights[row]} / divide_by;
        for (std::size_t c = 0; c < classes; ++c) want[c] = 0.25 + weight * double{upstream[row]} * double{d[c]};
        CHECK(near(std::vector<float>(gradient.begin() + static_cast<std::ptrdiff_t>(row * classes),
                                      gradient.begin() + static_cast<std::ptrdiff_t>((row + 1) * classes)),
                   want, {.absolute = 2e-7}, "gradient"));
        CHECK(near(row_values[3 * row], ignored ? 0 : one_row["kd"], {.relative = 1e-6}));
        CHECK(near(row_values[3 * row + 1], ignored ? 0 : one_row["soft_cross_entropy"], {.relative = 1e-6}));
        CHECK(near(row_values[3 * row + 2], ignored ? 0 : one_row.total, {.relative = 1e-6}));
        total += weight * one_row.total;
        soft += weight * one_row["soft_cross_entropy"];
        if (ignored) continue;
        agrees += one_row.teacher_agreement;
        const auto largest = std::max_element(single.student.begin(), single.student.end()) - single.student.begin();
        correct += largest == labels[row];
      }
      CHECK(near(got.total, total, {.relative = 1e-6}));
      CHECK(near(got["kd"], 2 * total, {.relative = 1e-6}));
      CHECK(near(got["soft_cross_entropy"], soft, {.relative = 1e-6}));
      CHECK(got.rows == 5);
      CHECK(got.teacher_agreement == agrees / 5);
      CHECK(got.accuracy == correct / 5);
    }
}

TEST_CASE("top_k_loss: hits and agreement are those of the classes themselves", "[loss][top_k]") {
  // The rest together is likelier than any class; class 4 is the student's largest, in the rest, then 2, which is kept.
  std::vector<float> student{0, 0, 1, 0, 1.5f, 0, 0, 0, 1.5f, 0}, gradient(10);
  const std::vector<std::int32_t> indices{7, 2};
  std::vector<float> log_p{std::log(0.2f), std::log(0.7f)};
  std::vector<std::int32_t> label{4};
  const auto run = [&] {
    return kd::forward_backward(
        alone(kd::formula::forward_kl{}, 1),
        kd::logit_batch<float>{.rows = 1, .classes = 10, .student = {student.data()}, .labels = {label.data()}},
        kd::top_k_rows<>{.rows = 1,
                         .classes = 10,
                         .k = 2,
                         .indices = {indices.data()},
                         .values = {log_p.data()},
                         .rest = top_k_rest::one_bucket});
  };
  CHECK(run().accuracy == 1);
  CHECK(run().teacher_agreement == 0);
  student[2] = 1.5f;  // the first of equals
  CHECK(run().accuracy == 0);
  CHECK(run().teacher_agreement == 1);
  log_p[0] = log_p[1] = std::log(0.4f);
  student[7] = 3;
  CHECK(run().teacher_agreement == 0);  // the teacher's is 2
}

TEST_CASE("top_k_loss: 16-bit logits and gradients, in place, and any number of threads", "[loss][top_k]") {
  const kept_rows b(9, 400, 30, 30);
  const auto loss = alone(kd::formula::forward_kl{}, 1);
  std::vector<float> one(b.student.size()), three(b.student.size()), in_place = b.student;
  const auto teacher = b.teacher(top_k_rest::one_bucket);
  const double total = kd::forward_backward(loss, b.batch(one), teacher, kd::cpu::device(1)).total;
  CHECK(total == kd::forward_backward(loss, b.batch(three), teacher, kd::cpu::device(3)).total);
  CHECK(one == three);
  auto batch = b.batch(in_place);
  batch.student = {in_place.data()};
  CHECK(total == kd::forward_backward(loss, batch, teacher).total);
  CHECK(one == in_place);

  std::vector<kd::bfloat16> narrow(b.student.size()), d(b.student.size());
  kept_rows rounded = b;
  for (std::size_t i = 0; i < narrow.size(); ++i) {
    narrow[i] = kd::cpu::detail::from_float<kd::bfloat16>(b.student[i]);
    rounded.student[i] = kd::cpu::detail::to_float(narrow[i]);
  }
  const double want = kd::forward_backward(loss, rounded.batch(one), teacher).total;
  const kd::loss_terms got = kd::forward_backward(
      loss,
      kd::logit_batch<kd::bfloat16>{
          .rows = b.rows, .classes = b.classes, .student = {narrow.data()}, .gradient = {d.data()}},
      teacher);
  CHECK(got.total == want);
  for (std::size_t i = 0; i < d.size(); ++i)
    if (d[i].bits != kd::cpu::detail::from_float<kd::bfloat16>(one[i]).bits) FAIL_CHECK("gradient " << i);
}

TEST_CASE("top_k_loss: a row without a finite loss is named by its class, and no gradient is written",
          "[loss][top_k][errors]") {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<std::int32_t> indices{0, 1, 4, 2};
  std::vector<float> student(10, 1.0f), log_p(4, std::log(0.4f)), gradient(10, 7.0f);
  top_k_rest rest = top_k_rest::one_bucket;
  const auto message = [&] {
    const std::string text = message_of<kd::non_finite_error>([&] {
      kd::forward_backward(
          alone(kd::formula::forward_kl{}, 1),
          kd::logit_batch<float>{.rows = 2, .classes = 5, .student = {student.data()}, .gradient = {gradient.data()}},
          kd::top_k_rows<>{
              .rows = 2, .classes = 5, .k = 2, .indices = {indices.data()}, .values = {log_p.data()}, .rest = rest});
    });
    CHECK(gradient == std::vector<float>(10, 7.0f));
    return text;
  };
  student[5 + 3] = nan;
  CHECK(holds(message(), "student", "NaN at row 1, class 3"));
  student[5 + 3] = infinity;
  CHECK(holds(message(), "student", "plus infinity at row 1, class 3"));
  student[5 + 3] = 1;
  student[5 + 4] = nan;
  CHECK(holds(message(), "student", "NaN at row 1, class 4"));
  student[5 + 4] = -infinity;
  CHECK(holds(message(), "masked in the student at row 1, class 4"));
  student[5 + 4] = 1;
  for (const std::size_t c : {0u, 1u, 3u}) student[5 + c] = -infinity;
  CHECK(holds(message(), "masked in the student at row 1, class 0"));  // the first of the rest
  student.assign(10, 1.0f);
  log_p[3] = nan;
  CHECK(holds(message(), "teacher", "NaN at row 1, class 2"));
  rest = top_k_rest::masked;
  log_p[2] = log_p[3] = -infinity;
  CHECK(holds(message(), "teacher", "minus infinity in every class of row 1"));
}

TEST_CASE("top_k_loss: what cannot be is named, and nothing is written", "[loss][top_k][errors]") {
  const std::vector<std::int32_t> indices{0, 1, 4, 2};
  std::vector<float> student(10, 1.0f), values(4, std::log(0.4f)), gradient(10, 7.0f);
  const kd::logit_batch<float> good = {
      .rows = 2, .classes = 5, .student = {student.data()}, .gradient = {gradient.data()}};
  const kd::top_k_rows<> teacher = {.rows = 2,
                                    .classes = 5,
                                    .k = 2,
                                    .indices = {indices.data()},
                                    .values = {values.data()},
                                    .rest = top_k_rest::one_bucket};
  const auto message = [&](const auto& loss, kd::logit_batch<float> batch, kd::top_k_rows<> rows) {
    const std::string text = message_of<kd::argument_error>([&] { kd::forward_backward(loss, batch, rows); });
    CHECK(gradient == std::vector<float>(10, 7.0f));
    return text;
  };
  const auto kl = alone(kd::formula::forward_kl{}, 2);
  auto rows = teacher;
  rows.rest = top_k_rest::spread;
  CHECK(holds(message(kl, good, rows), "masked or one_bucket", "expand_top_k"));
  CHECK(holds(message(alone(kd::formula::forward_kl{}, 2, 0), good, teacher), "teacher_temperature must be 1",
              "received 2"));
  rows.rest = top_k_rest::masked;
  CHECK(holds(message(alone(kd::formula::partial_kl{}, 2, 0), good, rows), "teacher_temperature must be 1",
              "log-probabilities"));
  auto batch = good;
  batch.teacher = {values.data()};
  CHECK(holds(message(kl, batch, teacher), "batch.teacher must be null"));
  rows = teacher;
  rows.rows = 3;
  CHECK(holds(message(kl, good, rows), "2 rows of 5 classes", "3 of 5"));
  rows.rows = 2;
  rows.k = 6;
  CHECK(holds(message(kl, good, rows), "k must lie in [1,5]"));
  rows = teacher;
  rows.indices.data = nullptr;
  CHECK(holds(message(kl, good, rows), "must not be null"));
  rows = teacher;
  rows.values.data = gradient.data() + 6;
  CHECK(holds(message(kl, good, rows), "must not share memory"));
  batch = good;
  const std::vector<std::int32_t> labels{0, 5};
  batch.labels = {labels.data()};
  CHECK(holds(message(kl, batch, teacher), "label 1"));
  CHECK(kd::forward_backward(kl, kd::logit_batch<float>{}, teacher).total == 0);  // no rows
}
