#include "kd/cpu/dist_columns.hpp"

#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/dist_columns_definition.hpp"
#include "support/message.hpp"

using namespace kd_test;

namespace {

struct call_outcome {
  double value = 0;
  std::vector<float> d_student;
};
call_outcome run(const columns_batch& b, const kd::dist_columns& loss, int threads = 1, float before = 7,
                 bool add = false) {
  call_outcome out{0, std::vector<float>(b.student.size(), before)};
  std::vector<std::byte> scratch(kd::cpu::dist_columns_scratch(b.rows, b.classes), std::byte{0xFF});
  out.value = kd::cpu::dist_columns_forward_backward({threads},
                                                     {.rows = b.rows,
                                                      .classes = b.classes,
                                                      .student = {b.student.data()},
                                                      .teacher = {b.teacher.data()},
                                                      .gradient = {out.d_student.data()},
                                                      .add_to_gradient = add},
                                                     loss, scratch);
  return out;
}

}  // namespace

TEST_CASE("dist_columns: value and gradient are the definition's", "[cpu][dist_columns]") {
  for (const std::size_t classes : {1u, 2u, 10u, 16u, 37u, 100u})
    for (const std::size_t rows : {2u, 3u, 20u})
      for (const float T : {1.0f, 4.0f}) {
        CAPTURE(classes, rows, T);
        const columns_batch b = random_columns(rows, classes);
        const columns_definition want = define_columns(b, T, 2 * T, 0.5 * T * T);
        const call_outcome got = run(b, {.temperature = T, .teacher_temperature = 2 * T, .weight = 0.5f});
        CHECK(near(got.value, want.value, {.relative = 2e-5, .scale_at_least = 1}));
        CAPTURE(want.narrowness);
        CHECK(near(got.d_student, want.d_student,
                   {.absolute = T * T * (5e-6 + 1e-7 * want.narrowness), .of_largest = 1e-4}, "d_student"));
      }
  const columns_batch b = random_columns(5, 20);
  CHECK(near(run(b, {.temperature = 4, .times_temperature_squared = false}).value * 16,
             run(b, {.temperature = 4}).value, {.relative = 1e-12}));
}

TEST_CASE("dist_columns: equal logits are related wholly, one row and constant columns not at all",
          "[cpu][dist_columns]") {
  columns_batch b = random_columns(12, 30);
  b.teacher = b.student;
  const call_outcome equal = run(b, {.temperature = 1});
  CHECK(near(equal.value, 0, {.absolute = 1e-6}));
  CHECK(near(equal.d_student, std::vector<double>(b.student.size()), {.absolute = 1e-6}, "d_student"));

  const call_outcome one = run(random_columns(1, 30), {.temperature = 2});
  CHECK(one.value == 4.0);
  CHECK(one.d_student == std::vector<float>(30, 0.0f));
  columns_batch same = random_columns(4, 30);
  for (std::size_t i = 30; i < same.student.size(); ++i) same.student[i] = same.student[i % 30];
  const call_outcome constant = run(same, {.temperature = 1});
  CHECK(constant.value == 1.0);
  CHECK(constant.d_student == std::vector<float>(same.student.size(), 0.0f));
  CHECK(run(columns_batch{0, 30, {}, {}}, {}).value == 0.0);
}

TEST_CASE("dist_columns: masked classes have probability 0, the order of the rows does not matter",
          "[cpu][dist_columns]") {
  columns_batch b = random_columns(6, 21);
  for (std::size_t row = 0; row < 6; ++row) b.student[row * 21 + 4] = b.teacher[row * 21 + 4] = -INFINITY;
  b.student[2 * 21 + 7] = -INFINITY;
  const columns_definition want = define_columns(b, 2, 2, 4);
  const call_outcome got = run(b, {.temperature = 2});
  CHECK(near(got.value, want.value, {.relative = 2e-5, .scale_at_least = 1}));
  CHECK(near(got.d_student, want.d_student, {.absolute = 2e-5, .of_largest = 1e-4}, "d_student"));

  columns_batch turned = b;
  for (auto* logits : {&turned.student, &turned.teacher})
    std::rotate(logits->begin(), logits->begin() + 21, logits->end());
  CHECK(near(run(turned, {.temperature = 2}).value, got.value, {.relative = 1e-12}));
}

TEST_CASE("dist_columns: the same bits for any number of threads; the gradient is added where that is asked",
          "[cpu][dist_columns]") {
  const columns_batch b = random_columns(33, 150);
  const call_outcome one = run(b, {});
  for (const int threads : {2, 5}) {
    const call_outcome more = run(b, {}, threads);
    CHECK(more.value == one.value);
    CHECK(std::memcmp(more.d_student.data(), one.d_student.data(), one.d_student.size() * sizeof(float)) == 0);
  }
  const call_outcome added = run(b, {}, 1, 2, true);
  for (std::size_t i = 0; i < one.d_student.size(); ++i) REQUIRE(added.d_student[i] == 2 + one.d_student[i]);
}

TEST_CASE("dist_columns: what cannot be is named, and nothing is written", "[cpu][dist_columns][errors]") {
  columns_batch b = random_columns(4, 9);
  std::vector<float> d(36, 7.0f);
  std::vector<std::byte> scratch(kd::cpu::dist_columns_scratch(4, 9));
  kd::formula::logit_batch<float> batch{
      .rows = 4, .classes = 9, .student = {b.student.data()}, .teacher = {b.teacher.data()}, .gradient = {d.data()}};
  kd::dist_columns loss;
  const auto message = [&]<class Error>(Error*) {
    const std::string text =
        message_of<Error>([&] { kd::cpu::dist_columns_forward_backward({1}, batch, loss, scratch); });
    CHECK(d == std::vector<float>(36, 7.0f));
    return text;
  };
  constexpr kd::argument_error* argument = nullptr;
  loss.temperature = 0;
  CHECK(holds(message(argument), "dist_columns: temperature must be a number in"));
  loss = {};
  const float weights[4] = {1, 1, 1, 1};
  batch.row_weights = weights;
  CHECK(holds(message(argument), "row_weights"));
  batch.row_weights = nullptr;
  batch.teacher.data = nullptr;
  CHECK(holds(message(argument), "teacher logits must not be null"));
  batch.teacher.data = b.teacher.data();
  scratch.resize(100);
  CHECK(holds(message(argument), "scratch must have"));
  scratch.resize(kd::cpu::dist_columns_scratch(4, 9));
  constexpr kd::non_finite_error* not_finite = nullptr;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), INFINITY}) {
    b.teacher[2 * 9 + 5] = bad;
    CHECK(holds(message(not_finite), "dist_columns: teacher logits of row 2", "nothing was written"));
  }
  b.teacher[2 * 9 + 5] = 0;
  std::fill_n(b.student.begin() + 9, 9, -INFINITY);
  CHECK(holds(message(not_finite), "student logits of row 1"));
}
