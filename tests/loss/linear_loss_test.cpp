#include "kd/loss/linear_loss.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kd/formula/losses.hpp"
#include "kd/loss/cross_entropy.hpp"
#include "kd/loss/distillation.hpp"
#include "kd/loss/formula_of.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/loss_definitions.hpp"
#include "support/loss_edge_rows.hpp"
#include "support/message.hpp"

using namespace kd_test;
using kd::cpu::detail::from_float;
using kd::cpu::detail::to_float;

namespace {

/// Hidden states and matrices of a student and a teacher. `spread`: of the student's logits, about.
template <class T>
struct problem {
  std::size_t rows, classes, width, teacher_width;
  std::vector<T> hidden, matrix, teacher_hidden, teacher_matrix;
  std::vector<float> bias;
  std::vector<std::int32_t> labels;

  problem(std::size_t rows_, std::size_t classes_, std::size_t width_, std::size_t teacher_width_, float spread = 8)
      : rows(rows_), classes(classes_), width(width_), teacher_width(teacher_width_) {
    const auto numbers = [](std::size_t count, float scale, std::uint32_t which) {
      std::vector<T> out;
      for (const float x : spread_logits(count, scale, which)) out.push_back(from_float<T>(x));
      return out;
    };
    const float each = 1.7f / std::sqrt(static_cast<float>(width));  // sums of `width` products of these spread by 1
    hidden = numbers(rows * width, spread * each, 1);
    matrix = numbers(classes * width, 1, 2);
    teacher_hidden = numbers(rows * teacher_width, 8 * 1.7f / std::sqrt(static_cast<float>(teacher_width)), 3);
    teacher_matrix = numbers(classes * teacher_width, 1, 4);
    bias = spread_logits(classes, 1, 5);
    for (std::size_t row = 0; row < rows; ++row) labels.push_back(static_cast<std::int32_t>(row * 31 % classes));
  }
  kd::linear_batch<T> batch() const {
    return {.rows = rows,
            .classes = classes,
            .student = {hidden.data(), matrix.data(), width, bias.data()},
            .teacher = {teacher_hidden.data(), teacher_matrix.data(), teacher_width},
            .labels = labels.data()};
  }
  /// The smallest bound that holds so many rows.
  template <class Loss>
  std::size_t bytes_for(const Loss& loss, std::size_t at_once, int threads) const {
    auto wants = batch();
    wants.memory = std::size_t{1} << 40;
    wants.rows = at_once;
    const std::size_t list = (at_once * sizeof(std::size_t) + 63) / 64 * 64;
    return kd::linear_chunks(loss, wants, kd::cpu::device(threads)).bytes - list +
           (rows * sizeof(std::size_t) + 63) / 64 * 64;
  }
};

/// Terms and gradients by the definition in float64.
struct defined_linear {
  double total = 0;
  std::vector<double> d_hidden, d_matrix, d_bias;
};
template <class Loss, class T>
defined_linear define_linear(const Loss& loss, const problem<T>& b) {
  defined_linear out;
  out.d_hidden.resize(b.rows * b.width);
  out.d_matrix.resize(b.classes * b.width);
  out.d_bias.resize(b.classes);
  const auto logits = [&](const std::vector<T>& hidden, const std::vector<T>& matrix, std::size_t width,
                          std::size_t row) {
    std::vector<double> z(b.classes);
    for (std::size_t c = 0; c < b.classes; ++c)
      for (std::size_t k = 0; k < width; ++k)
        z[c] += double{to_float(hidden[row * width + k])} * double{to_float(matrix[c * width + k])};
    return z;
  };
  for (std::size_t row = 0; row < b.rows; ++row) {
    std::vector<double> z = logits(b.hidden, b.matrix, b.width, row);
    for (std::size_t c = 0; c < b.classes; ++c) z[c] += double{b.bias[c]};
    const auto defined =
        define_loss(loss.formula(), z, logits(b.teacher_hidden, b.teacher_matrix, b.teacher_width, row),
                    static_cast<std::size_t>(b.labels[row]));
    const auto rows = static_cast<double>(b.rows);
    out.total += defined.total / rows;
    for (std::size_t c = 0; c < b.classes; ++c) {
      const double d = defined.d_student[c] / rows;
      out.d_bias[c] += d;
      for (std::size_t k = 0; k < b.width; ++k) {
        out.d_hidden[row * b.width + k] += d * double{to_float(b.matrix[c * b.width + k])};
        out.d_matrix[c * b.width + k] += d * double{to_float(b.hidden[row * b.width + k])};
      }
    }
  }
  return out;
}

struct gradients {
  std::vector<float> hidden, matrix, bias;
  template <class T>
  explicit gradients(const problem<T>& b, float filled = 7)
      : hidden(b.rows * b.width, filled), matrix(b.classes * b.width, filled), bias(b.classes, filled) {}
  void give(auto& batch) {
    batch.d_hidden = hidden.data();
    batch.d_matrix = matrix.data();
    batch.d_bias = bias.data();
  }
  bool operator==(const gradients&) const = default;
};

/// Against the definition, in chunks of one row, of some and of all.
template <class T, class Loss>
void check_definition(const Loss& loss, const problem<T>& b) {
  const defined_linear want = define_linear(loss, b);
  for (const std::size_t at_once : {std::size_t{1}, std::size_t{4}, b.rows}) {
    if (at_once > b.rows) continue;
    CAPTURE(Loss::name, sizeof(T), b.rows, b.classes, b.width, at_once);
    auto batch = b.batch();
    gradients d(b);
    d.give(batch);
    batch.memory = b.bytes_for(loss, at_once, 2);
    const kd::loss_terms got = kd::forward_backward(loss, batch, kd::cpu::device(2));
    CHECK(near(got.total, want.total, {.relative = 1e-5, .scale_at_least = 1}));
    CHECK(near(d.hidden, want.d_hidden, {.absolute = 1e-5 * largest_magnitude(want.d_hidden)}, "d_hidden"));
    CHECK(near(d.matrix, want.d_matrix, {.absolute = 1e-5 * largest_magnitude(want.d_matrix)}, "d_matrix"));
    CHECK(near(d.bias, want.d_bias, {.absolute = 1e-5 * largest_magnitude(want.d_bias)}, "d_bias"));
    CHECK(got.rows == b.rows);
  }
}

const kd::distillation usual{.temperature = 2, .kd_weight = 0.5f, .ce_weight = 0.5f};

}  // namespace

TEST_CASE("linear_loss: terms and gradients are those of the logits in float64, for any size and chunk",
          "[loss][linear_loss]") {
  for (const std::size_t width : {1u, 16u, 70u, 200u})
    for (const std::size_t classes : {2u, 15u, 64u, 131u})
      check_definition(usual, problem<float>(7, classes, width, 33));
  check_definition(usual, problem<float>(1, 1000, 64, 200));
  check_definition(usual, problem<float>(200, 17, 20, 20));
  check_definition(kd::distillation_with<kd::formula::reverse_kl>{.temperature = 1.5f}, problem<float>(5, 100, 48, 64));
  check_definition(kd::cross_entropy{}, problem<float>(5, 100, 48, 64));
}

TEST_CASE("linear_loss: inputs of 16 bits whose logits spread over 30 lose nothing on the way to the loss",
          "[loss][linear_loss]") {
  check_definition(usual, problem<kd::bfloat16>(6, 300, 96, 64, 30));
  check_definition(usual, problem<kd::float16>(6, 300, 96, 64, 30));
}

TEST_CASE("linear_loss: the chunk is what the bound allows, and the call allocates what it says",
          "[loss][linear_loss]") {
  const problem<float> b(100, 500, 32, 32);
  for (const std::size_t memory : {std::size_t{200'000}, std::size_t{400'000}, std::size_t{1} << 30}) {
    auto batch = b.batch();
    batch.memory = memory;
    const kd::linear_chunk chunk = kd::linear_chunks(usual, batch, kd::cpu::device(2));
    CAPTURE(memory, chunk.rows, chunk.bytes);
    CHECK(chunk.bytes <= memory);
    CHECK(chunk.rows >= 1);
    CHECK(chunk.rows <= 100);
    if (memory == std::size_t{1} << 30) CHECK(chunk.rows == 100);
    // Chunks are as few as they can be: with one less the rows of each would not fit.
    const std::size_t chunks = (100 + chunk.rows - 1) / chunk.rows;
    if (chunks > 1) CHECK(b.bytes_for(usual, (100 + chunks - 2) / (chunks - 1), 2) > memory);
  }
}

TEST_CASE("linear_loss: the same bits for any number of threads, gradients are added where asked, or left out",
          "[loss][linear_loss]") {
  const problem<float> b(40, 333, 50, 40);
  auto batch = b.batch();
  batch.memory = b.bytes_for(usual, 16, 8);
  gradients one(b), four(b);
  one.give(batch);
  const double total = kd::forward_backward(usual, batch, kd::cpu::device(1)).total;
  // The bound holds another number of rows with fewer threads' scratch: the chunks must be the same.
  auto again = batch;
  four.give(again);
  batch.memory = b.bytes_for(usual, 40, 8), again.memory = batch.memory;
  const double with_one = kd::forward_backward(usual, batch, kd::cpu::device(1)).total;
  const double with_four = kd::forward_backward(usual, again, kd::cpu::device(4)).total;
  CHECK(with_one == with_four);
  CHECK(near(total, with_one, {.relative = 1e-12}));
  CHECK(one == four);

  gradients added(b, 1);
  auto adding = batch;
  added.give(adding);
  adding.add_to_gradient = true;
  kd::forward_backward(usual, adding, kd::cpu::device(2));
  const auto one_more = [](std::vector<float> x) {
    for (float& v : x) v += 1;
    return x;
  };
  CHECK(near(added.hidden, one_more(one.hidden), {.absolute = 1e-6}, "d_hidden"));
  CHECK(near(added.matrix, one_more(one.matrix), {.absolute = 1e-6}, "d_matrix"));
  CHECK(near(added.bias, one_more(one.bias), {.absolute = 1e-6}, "d_bias"));

  auto values = b.batch();
  CHECK(kd::forward_backward(usual, values).total == with_one);
  gradients hidden_alone(b);
  values.d_hidden = hidden_alone.hidden.data();
  kd::forward_backward(usual, values);
  CHECK(hidden_alone.hidden == one.hidden);
}

TEST_CASE("linear_loss: rows that are ignored are not looked at, weights and upstream multiply",
          "[loss][linear_loss]") {
  problem<float> b(9, 50, 24, 24);
  problem<float> kept = b;
  kept.rows = 7;
  const auto drop = [](auto& x, std::size_t width, std::size_t row) {
    const auto begin = x.begin() + static_cast<std::ptrdiff_t>(row * width);
    x.erase(begin, begin + static_cast<std::ptrdiff_t>(width));
  };
  for (const std::size_t row : {6u, 2u}) {
    b.labels[row] = -100;
    std::fill_n(b.hidden.begin() + static_cast<std::ptrdiff_t>(row * 24), 24, std::numeric_limits<float>::quiet_NaN());
    drop(kept.hidden, 24, row), drop(kept.teacher_hidden, 24, row), drop(kept.labels, 1, row);
  }
  auto batch = b.batch(), want = kept.batch();
  gradients got_d(b), want_d(kept);
  got_d.give(batch), want_d.give(want);
  batch.divide_by = kd::divisor::valid_rows;
  CHECK(kd::forward_backward(usual, batch).total == kd::forward_backward(usual, want).total);
  CHECK(got_d.matrix == want_d.matrix);
  for (const std::size_t row : {2u, 6u})
    for (std::size_t k = 0; k < 24; ++k) CHECK(got_d.hidden[row * 24 + k] == 0);

  const std::vector<float> weights(9, 2.0f);
  const float upstream = 0.5f;
  gradients weighted(b);
  weighted.give(batch);
  batch.row_weights = weights.data();
  batch.upstream = &upstream;
  kd::forward_backward(usual, batch);
  CHECK(weighted == got_d);

  std::fill(b.labels.begin(), b.labels.end(), -100);
  const kd::loss_terms nothing = kd::forward_backward(usual, batch);
  CHECK(nothing.total == 0);
  CHECK(nothing.rows == 0);
  CHECK(weighted == gradients(b, 0));
}

TEST_CASE("linear_loss: bad arguments are named before anything is written, faults by the row of the batch",
          "[loss][linear_loss][errors]") {
  problem<float> b(9, 50, 24, 24);
  gradients d(b);
  auto good = b.batch();
  d.give(good);
  const auto says = [&](auto bad, const char* what) {
    CHECK(holds(message_of<kd::argument_error>([&] { kd::forward_backward(usual, bad); }), what));
  };
  auto bad = good;
  bad.memory = 1000;
  says(bad, "bytes for one row");
  bad = good, bad.student.matrix = nullptr;
  says(bad, "student's matrix must not be null");
  bad = good, bad.teacher.hidden = nullptr;
  says(bad, "teacher's hidden states must not be null");
  bad = good, bad.labels = nullptr;
  says(bad, "labels must not be null");
  bad = good, bad.student.width = 0;
  says(bad, "width");
  bad = good, bad.classes = 0;
  says(bad, "at least one class");
  bad = good, bad.rows = std::numeric_limits<std::size_t>::max() / 2;
  says(bad, "sizes must multiply to at most");
  bad = good, bad.d_matrix = const_cast<float*>(bad.student.matrix);
  says(bad, "must not share memory");
  bad = good, bad.d_hidden = bad.d_matrix + 1;
  says(bad, "must not share memory");
  b.labels[3] = 50;
  says(good, "label 3");
  b.labels[3] = 3;
  CHECK(d == gradients(b));

  b.hidden[7 * 24] = std::numeric_limits<float>::quiet_NaN();
  good.memory = b.bytes_for(usual, 2, 1);
  CHECK(holds(message_of<kd::non_finite_error>([&] { kd::forward_backward(usual, good, kd::cpu::device(1)); }),
              "student logits have a NaN at row 7"));
}
