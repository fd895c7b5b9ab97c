#include "kd/cuda/dist_columns.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/dist_columns_definition.hpp"
#include "support/guarded_array.hpp"
#include "support/message.hpp"

using namespace kd_test;

namespace {

struct call_outcome {
  double value = 0;
  std::vector<float> d_student;
};
/// With rows that lie three elements apart.
call_outcome run(const columns_batch& b, const kd::dist_columns& loss, float before = 7, bool add = false) {
  const kd::cuda::stream s;
  const std::size_t stride = b.classes + 3;
  const auto apart = [&](const std::vector<float>& x) {
    std::vector<float> out(b.rows * stride, 99);
    for (std::size_t row = 0; row < b.rows; ++row)
      std::copy_n(x.begin() + static_cast<std::ptrdiff_t>(row * b.classes), b.classes,
                  out.begin() + static_cast<std::ptrdiff_t>(row * stride));
    return out;
  };
  guarded_array<float> student(s, apart(b.student)), teacher(s, b.teacher);
  guarded_array<float> gradient(s, std::vector<float>(b.student.size(), before));
  guarded_array<std::byte> scratch(s, kd::cuda::dist_columns_scratch(b.rows, b.classes));
  guarded_array<kd::cuda::columns_result> result(s, std::vector<kd::cuda::columns_result>(1));
  kd::cuda::dist_columns_forward_backward(s,
                                          {.rows = b.rows,
                                           .classes = b.classes,
                                           .student = {student.data(), stride},
                                           .teacher = {teacher.data()},
                                           .gradient = {gradient.data()},
                                           .add_to_gradient = add},
                                          loss, scratch.data(), result.data());
  call_outcome out;
  out.d_student = gradient.values();
  try {
    out.value = kd::cuda::read_columns(s, result.data());
  } catch (const kd::non_finite_error&) {
    CHECK(out.d_student == std::vector<float>(b.student.size(), before));
    throw;
  }
  scratch.values();
  return out;
}

}  // namespace

TEST_CASE("cuda dist_columns: value and gradient are the definition's, in the same bits each time",
          "[cuda][dist_columns]") {
  for (const std::size_t classes : {1u, 10u, 33u, 300u})
    for (const std::size_t rows : {2u, 9u})
      for (const float T : {1.0f, 4.0f}) {
        CAPTURE(classes, rows, T);
        const columns_batch b = random_columns(rows, classes);
        const columns_definition want = define_columns(b, T, 2 * T, 0.5 * T * T);
        const kd::dist_columns loss = {.temperature = T, .teacher_temperature = 2 * T, .weight = 0.5f};
        const call_outcome got = run(b, loss);
        CHECK(near(got.value, want.value, {.relative = 2e-5, .scale_at_least = 1}));
        CHECK(near(got.d_student, want.d_student,
                   {.absolute = T * T * (5e-6 + 1e-7 * want.narrowness), .of_largest = 1e-4}, "d_student"));
        const call_outcome again = run(b, loss);
        CHECK(again.value == got.value);
        CHECK(again.d_student == got.d_student);
      }
}

TEST_CASE("cuda dist_columns: masks, constant columns, one row, and a gradient that is added", "[cuda][dist_columns]") {
  columns_batch b = random_columns(6, 21);
  for (std::size_t row = 0; row < 6; ++row) b.student[row * 21 + 4] = b.teacher[row * 21 + 4] = -INFINITY;
  b.student[2 * 21 + 7] = -INFINITY;
  const columns_definition want = define_columns(b, 2, 2, 4);
  const call_outcome got = run(b, {.temperature = 2});
  CHECK(near(got.value, want.value, {.relative = 2e-5, .scale_at_least = 1}));
  CHECK(near(got.d_student, want.d_student, {.absolute = 2e-5, .of_largest = 1e-4}, "d_student"));
  const call_outcome added = run(b, {.temperature = 2}, 2, true);
  for (std::size_t i = 0; i < got.d_student.size(); ++i) REQUIRE(added.d_student[i] == 2 + got.d_student[i]);

  const call_outcome one = run(random_columns(1, 30), {.temperature = 2});
  CHECK(one.value == 4.0);
  CHECK(one.d_student == std::vector<float>(30, 0.0f));
  columns_batch same = random_columns(4, 30);
  for (std::size_t i = 30; i < same.student.size(); ++i) same.student[i] = same.student[i % 30];
  const call_outcome constant = run(same, {.temperature = 1});
  CHECK(constant.value == 1.0);
  CHECK(constant.d_student == std::vector<float>(same.student.size(), 0.0f));
}

TEST_CASE("cuda dist_columns: a row at fault is named, and no gradient is written", "[cuda][dist_columns][errors]") {
  const auto message = [](const columns_batch& b) {
    return message_of<kd::non_finite_error>([&] { (void)run(b, {}); });
  };
  columns_batch b = random_columns(4, 9);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), INFINITY}) {
    b.teacher[2 * 9 + 5] = bad;
    CHECK(holds(message(b), "dist_columns: teacher logits of row 2", "nothing was written"));
  }
  std::fill_n(b.student.begin() + 9, 9, -INFINITY);
  CHECK(holds(message(b), "student logits of row 1"));
}

TEST_CASE("cuda dist_columns: arguments that do not fit are refused", "[cuda][dist_columns][errors]") {
  const kd::cuda::stream s;
  guarded_array<float> x(s, std::vector<float>(8, 7));
  guarded_array<std::byte> scratch(s, kd::cuda::dist_columns_scratch(1, 4));
  guarded_array<kd::cuda::columns_result> result(s, 1);
  const kd::formula::logit_batch<float> good = {
      .rows = 1, .classes = 4, .student = {x.data()}, .teacher = {x.data() + 4}};
  const auto message = [&](const kd::formula::logit_batch<float>& batch, const kd::dist_columns& loss,
                           kd::cuda::columns_result* to) {
    return message_of<kd::argument_error>(
        [&] { kd::cuda::dist_columns_forward_backward(s, batch, loss, scratch.data(), to); });
  };
  CHECK(holds(message(good, {.temperature = 0}, result.data()), "temperature must be a number in"));
  CHECK(holds(message(good, {}, nullptr), "result must not be null"));
  auto bad = good;
  bad.teacher_classes = 4;
  CHECK(holds(message(bad, {}, result.data()), "teacher_classes"));
  bad = good;
  bad.gradient = {x.data() + 6};
  CHECK(holds(message(bad, {}, result.data()), "must not share memory"));
}
