#include "kd/cpu/split_vocabulary.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "kd/loss/cross_entropy.hpp"
#include "kd/loss/distillation.hpp"
#include "kd/loss/weighted_sum.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/logit_loss_suite.hpp"
#include "support/message.hpp"
#include "support/slice_ends.hpp"

using namespace kd_test;
using kd::cpu::vocabulary_slice;

namespace {

struct split_outcome {
  kd::loss_result result;
  std::vector<float> d_student;
  std::vector<kd::loss_fault> faults;
};

/// Every part as a process of its own would do it: strided rows of the whole arrays, an exchange by copies of bytes.
template <class Loss>
split_outcome run_split(const Loss& loss, const logit_rows& b, const std::vector<std::size_t>& ends, int threads = 1) {
  using namespace kd::cpu;
  const parallel team{threads};
  split_outcome out;
  out.d_student.assign(b.rows * b.classes, 7.0f);
  std::vector<vocabulary_slice> slices;
  std::vector<kd::formula::logit_batch<float>> batches;
  for (std::size_t p = 0, first = 0; p < ends.size(); first = ends[p++]) {
    slices.push_back({first, b.classes});
    batches.push_back({.rows = b.rows,
                       .classes = ends[p] - first,
                       .student = {b.student.data() + first, b.classes},
                       .teacher = {b.teacher.data() + first, b.classes},
                       .labels = {b.labels.data()},
                       .gradient = {out.d_student.data() + first, b.classes}});
  }
  std::vector<std::vector<slice_row<Loss>>> records(ends.size(), std::vector<slice_row<Loss>>(b.rows));
  std::vector<std::vector<slice_sums<Loss>>> sums(ends.size(), std::vector<slice_sums<Loss>>(b.rows));
  std::vector<std::byte> scratch(logit_loss_scratch(team, b.rows, b.classes), std::byte{0xFF});
  for (std::size_t p = 0; p < ends.size(); ++p)
    read_slice(team, batches[p], loss, slices[p], scratch, std::span(records[p]));
  std::vector<slice_row<Loss>> joined(b.rows);
  std::vector<slice_sums<Loss>> joined_sums(b.rows);
  join_slices(loss, std::vector<std::span<const slice_row<Loss>>>(records.begin(), records.end()), std::span(joined));
  if constexpr (has_second_sweep<Loss>) {
    for (std::size_t p = 0; p < ends.size(); ++p)
      sum_slice(team, batches[p], loss, slices[p], std::span<const slice_row<Loss>>(joined), scratch,
                std::span(sums[p]));
    join_sums<Loss>(std::vector<std::span<const slice_sums<Loss>>>(sums.begin(), sums.end()), joined_sums);
  }
  for (std::size_t p = 0; p < ends.size(); ++p) {
    const kd::loss_result one =
        finish_slice(team, batches[p], loss, slices[p], std::span<const slice_row<Loss>>(joined),
                     std::span<const slice_sums<Loss>>(joined_sums), scratch);
    out.faults.push_back(one.fault);
    if (p > 0) CHECK(one.terms.total == out.result.terms.total);
    out.result = one;
  }
  return out;
}

template <class Loss>
std::vector<double> definition_of(const Loss& loss, const logit_rows& b, double& total) {
  std::vector<double> d_student;
  total = 0;
  for (std::size_t row = 0; row < b.rows; ++row) {
    const auto z = b.row_of(b.student, row), t = b.row_of(b.teacher, row);
    const auto want = define_loss(loss.formula(), z, t, static_cast<std::size_t>(b.labels[row]));
    total += want.total / static_cast<double>(b.rows);
    for (const double d : want.d_student) d_student.push_back(d / static_cast<double>(b.rows));
  }
  return d_student;
}

/// Splits into 1 to 8 parts, the label in every one of them, some classes masked on both sides.
template <class Loss>
void check_splits(const Loss& loss) {
  for (const std::size_t classes : {8u, 65u, 1100u, 4100u}) {
    logit_rows b = random_rows(3, classes, 5);
    b.labels = {0, static_cast<std::int32_t>(classes / 2), static_cast<std::int32_t>(classes - 1)};
    for (std::size_t c = 1; c < classes / 4; ++c)
      for (auto* logits : {&b.student, &b.teacher}) (*logits)[classes + c] = -INFINITY;
    double total = 0;
    const std::vector<double> d_student = definition_of(loss, b, total);
    for (std::size_t parts = 1; parts <= 8; ++parts) {
      CAPTURE(Loss::name, classes, parts);
      const split_outcome got = run_split(loss, b, ends_of(classes, parts));
      REQUIRE(got.result.finite());
      CHECK(near(got.result.terms.total, total, {.relative = 1e-5, .scale_at_least = 1}));
      CHECK(near(got.d_student, d_student, {.absolute = 1e-5}, "d_student"));
      const split_outcome again = run_split(loss, b, ends_of(classes, parts), 2);
      CHECK(std::memcmp(got.d_student.data(), again.d_student.data(), got.d_student.size() * sizeof(float)) == 0);
      CHECK(got.result.terms.total == again.result.terms.total);
    }
  }
}

}  // namespace

TEST_CASE("split_vocabulary: every loss that can be split is its definition, the same bits for the same split",
          "[cpu][split_vocabulary]") {
  kd::formula::divergences::each([]<class Divergence>(const Divergence& usual) {
    if constexpr (!kd::formula_of<kd::distillation_with<Divergence>>::standardises)
      check_splits(kd::distillation_with<Divergence>{.temperature = 1.5f, .divergence = variants_of(usual).front()});
  });
  check_splits(kd::distillation{.temperature = 2});
  check_splits(kd::distillation{.temperature = 1});
  check_splits(kd::cross_entropy{});
  check_splits(kd::weighted_sum{kd::softening{}, kd::weighted_term{1.0f, kd::formula::smoothed_cross_entropy{}},
                                kd::weighted_term{0.1f, kd::formula::z_loss{}}});
}

TEST_CASE("split_vocabulary: one part is the whole call, to the bit", "[cpu][split_vocabulary]") {
  const logit_rows b = random_rows(5, 3000, 9);
  const auto check = [&](const auto& loss) {
    std::vector<float> whole(b.rows * b.classes);
    std::vector<std::byte> scratch(kd::cpu::logit_loss_scratch({1}, b.rows, b.classes));
    const kd::loss_result want =
        kd::cpu::logit_loss_forward_backward({1},
                                             kd::formula::logit_batch<float>{.rows = b.rows,
                                                                             .classes = b.classes,
                                                                             .student = {b.student.data()},
                                                                             .teacher = {b.teacher.data()},
                                                                             .labels = {b.labels.data()},
                                                                             .gradient = {whole.data()}},
                                             loss, scratch);
    const split_outcome got = run_split(loss, b, {b.classes});
    CHECK(got.result.terms.total == want.terms.total);
    CHECK(got.d_student == whole);
    CHECK(got.result.terms.accuracy == want.terms.accuracy);
    CHECK(got.result.terms.teacher_agreement == want.terms.teacher_agreement);
  };
  check(kd::distillation{.temperature = 3});
  check(kd::distillation_with<kd::formula::jensen_shannon>{.temperature = 3});
}

TEST_CASE("split_vocabulary: hit rates count the first of equal maxima over all parts", "[cpu][split_vocabulary]") {
  logit_rows b = random_rows(2, 40, 3);
  for (const std::size_t c : {5u, 30u}) b.student[c] = b.teacher[c] = b.student[40 + c] = 50;
  b.teacher[40 + 30] = 50;
  b.labels = {5, 30};
  const split_outcome got = run_split(kd::distillation{}, b, {20, 40});
  CHECK(got.result.terms.accuracy == 0.5);
  CHECK(got.result.terms.teacher_agreement == 0.5);
}

TEST_CASE("split_vocabulary: a fault is named by the part that has it, with the class of all",
          "[cpu][split_vocabulary]") {
  using enum kd::loss_fault_kind;
  const auto faults = [](const auto& change) {
    logit_rows b = random_rows(3, 90, 3);
    change(b);
    return run_split(kd::distillation{}, b, {30, 60, 90}).faults;
  };
  const auto nan = faults([](logit_rows& b) { b.teacher[90 + 71] = std::numeric_limits<float>::quiet_NaN(); });
  CHECK(nan[0].kind == overflow);
  CHECK(nan[2].kind == teacher_nan);
  CHECK(nan[2].row == 1);
  CHECK(nan[2].class_index == 71);
  const auto masked = faults([](logit_rows& b) { b.student[2 * 90 + 44] = -INFINITY; });
  CHECK(masked[1].kind == class_masked_in_student_only);
  CHECK(masked[1].class_index == 44);
  const auto label = faults([](logit_rows& b) { b.labels[0] = 61, b.student[61] = b.teacher[61] = -INFINITY; });
  CHECK(label[2].kind == label_masked);
  CHECK(label[2].class_index == 61);
}

TEST_CASE("split_vocabulary: what cannot be is named", "[cpu][split_vocabulary][errors]") {
  using namespace kd::cpu;
  const kd::distillation loss;
  const logit_rows b = random_rows(2, 10, 3);
  const kd::formula::logit_batch<float> batch{.rows = 2,
                                              .classes = 10,
                                              .student = {b.student.data()},
                                              .teacher = {b.teacher.data()},
                                              .labels = {b.labels.data()}};
  std::vector<std::byte> scratch(logit_loss_scratch({1}, 2, 10));
  std::vector<slice_row<kd::distillation>> rows(2), one(1);
  const auto read = [&](const vocabulary_slice& slice, std::span<slice_row<kd::distillation>> out) {
    return message_of<kd::argument_error>([&] { read_slice(parallel{1}, batch, loss, slice, scratch, out); });
  };
  CHECK(read({5, 15}, rows) == nothing_thrown);
  CHECK(holds(read({6, 15}, rows), "distillation: the slice must lie in [0,15)", "[6,16)"));
  CHECK(holds(read({20, 15}, rows), "the slice must lie in [0,15)"));
  CHECK(holds(read({0, 10}, one), "a record for each of 2 rows", "received 1"));
  const std::vector<std::span<const slice_row<kd::distillation>>> parts{rows, one};
  CHECK(holds(message_of<kd::argument_error>([&] { join_slices(loss, parts, std::span(rows)); }),
              "each part must have 2 rows", "received 1"));
}
