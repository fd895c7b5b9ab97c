#include "kd/cuda/split_vocabulary.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/cuda_loss_engine.hpp"
#include "support/message.hpp"
#include "support/slice_ends.hpp"

using namespace kd_test;

namespace {

struct split_outcome {
  std::vector<kd::loss_meter> sums;  // of each part
  std::vector<float> d_student;
};

/// Every part in turn, on strided rows of the whole arrays.
template <class Loss>
split_outcome run_split(const kd::cuda::stream& s, const Loss& formula, const logit_rows& b,
                        const std::vector<std::size_t>& ends) {
  using namespace kd::cuda;
  const std::size_t rows = b.rows, parts = ends.size();
  guarded_array<float> student(s, b.student), teacher(s, b.teacher),
      gradient(s, std::vector<float>(rows * b.classes, 7));
  guarded_array<std::int32_t> labels(s, b.labels);
  guarded_array<Loss> loss(s, std::vector<Loss>{formula});
  guarded_array<slice_row<Loss>> records(s, parts * rows), joined(s, rows);
  guarded_array<slice_sums<Loss>> second(s, parts * rows), joined_second(s, rows);
  guarded_array<std::byte> scratch(s, logit_loss_scratch<Loss>(rows));
  const auto slice = [&](std::size_t p) { return vocabulary_slice{p == 0 ? 0 : ends[p - 1], b.classes}; };
  const auto batch = [&](std::size_t p) {
    const std::size_t first = slice(p).first;
    return kd::formula::logit_batch<float>{.rows = rows,
                                           .classes = ends[p] - first,
                                           .student = {student.data() + first, b.classes},
                                           .teacher = {teacher.data() + first, b.classes},
                                           .labels = {labels.data()},
                                           .divide_by = kd::formula::divisor::valid_rows,
                                           .gradient = {gradient.data() + first, b.classes}};
  };
  const Loss* const in_memory = loss.data();
  for (std::size_t p = 0; p < parts; ++p) read_slice(s, batch(p), in_memory, slice(p), records.data() + p * rows);
  join_slices(s, in_memory, rows, parts, records.data(), joined.data());
  if constexpr (Loss::probability_sums > 0) {
    for (std::size_t p = 0; p < parts; ++p)
      sum_slice(s, batch(p), in_memory, slice(p), joined.data(), second.data() + p * rows);
    join_sums<Loss>(s, rows, parts, second.data(), joined_second.data());
  }
  split_outcome out;
  for (std::size_t p = 0; p < parts; ++p) {
    guarded_array<kd::loss_meter> sums(s, std::vector<kd::loss_meter>{{}});
    finish_slice(s, batch(p), in_memory, slice(p), joined.data(), joined_second.data(), scratch.data(), sums.data());
    out.sums.push_back(sums.values()[0]);
  }
  out.d_student = gradient.values();
  return out;
}

template <class Loss>
void check_splits(const Loss& loss) {
  const kd::cuda::stream s;
  for (const std::size_t classes : {8u, 65u, 1100u}) {
    logit_rows b = random_rows(3, classes, 5);
    b.labels = {0, static_cast<std::int32_t>(classes / 2), static_cast<std::int32_t>(classes - 1)};
    for (std::size_t c = 1; c < classes / 4; ++c)
      for (auto* logits : {&b.student, &b.teacher}) (*logits)[classes + c] = -INFINITY;
    double total = 0;
    std::vector<double> d_student;
    for (std::size_t row = 0; row < b.rows; ++row) {
      const auto want = define_loss(loss, b.row_of(b.student, row), b.row_of(b.teacher, row),
                                    static_cast<std::size_t>(b.labels[row]));
      total += want.total;
      for (const double d : want.d_student) d_student.push_back(d / 3);
    }
    for (const std::size_t parts : {1u, 2u, 3u, 8u}) {
      CAPTURE(classes, parts);
      const split_outcome got = run_split(s, loss, b, ends_of(classes, parts));
      for (const kd::loss_meter& sums : got.sums) {
        REQUIRE(kd::text_of(sums.fault()) == kd::text_of(kd::loss_fault{}));
        CHECK(near(sums.total, total, {.relative = 1e-5, .scale_at_least = 1}));
        CHECK(sums.total == got.sums[0].total);
        CHECK(sums.correct == got.sums[0].correct);
      }
      CHECK(near(got.d_student, d_student, {.absolute = 1e-5}, "d_student"));
      CHECK(got.d_student == run_split(s, loss, b, ends_of(classes, parts)).d_student);
    }
  }
}

template <class Term>
auto mixed(const Term& term, float T) {
  return with_cross_entropy(variants_of(term).front(), T, T);
}

}  // namespace

TEST_CASE("cuda split_vocabulary: losses are their definitions, the same bits for the same split",
          "[cuda][split_vocabulary]") {
  namespace f = kd::formula;
  check_splits(mixed(f::forward_kl{}, 2));
  check_splits(mixed(f::forward_kl{}, 1));
  check_splits(mixed(f::reverse_kl{}, 1.5f));
  check_splits(mixed(f::jensen_shannon{}, 1.5f));
  check_splits(mixed(f::dkd{}, 1.5f));
  check_splits(mixed(f::logit_mse{}, 1.5f));
  check_splits(alone(f::smoothed_cross_entropy{.label_smoothing = 0.125f}, 1));
}

TEST_CASE("cuda split_vocabulary: one part is the whole call, to the bit", "[cuda][split_vocabulary]") {
  const kd::cuda::stream s;
  const logit_rows b = random_rows(3, 700, 9);
  const auto check = [&](const auto& loss) {
    const auto want = cuda_loss_engine<kd::cuda::loss_variant::block_per_row>::run(loss, b);
    const split_outcome got = run_split(s, loss, b, {b.classes});
    CHECK(got.sums[0].total / 3 == want.total);
    CHECK(got.d_student == want.d_student);
  };
  check(mixed(kd::formula::forward_kl{}, 2));
  check(mixed(kd::formula::jensen_shannon{}, 3));
  check(mixed(kd::formula::dkd{}, 1));
}

TEST_CASE("cuda split_vocabulary: ignored rows count nowhere, and have a gradient of 0", "[cuda][split_vocabulary]") {
  const kd::cuda::stream s;
  logit_rows b = random_rows(3, 40, 5);
  b.labels[1] = -100;
  for (std::size_t c = 0; c < 40; ++c) b.student[40 + c] = NAN;
  const auto loss = mixed(kd::formula::jensen_shannon{}, 2);
  const split_outcome got = run_split(s, loss, b, {10, 40});
  CHECK(got.sums[1].rows == 2);
  CHECK(kd::text_of(got.sums[1].fault()) == kd::text_of(kd::loss_fault{}));
  for (std::size_t c = 0; c < 40; ++c)
    if (got.d_student[40 + c] != 0) FAIL_CHECK("gradient of class " << c);
}

TEST_CASE("cuda split_vocabulary: a fault is named by the part that has it", "[cuda][split_vocabulary][errors]") {
  const kd::cuda::stream s;
  const auto faults = [&](const logit_rows& b) {
    std::vector<std::string> found;
    const auto loss = mixed(kd::formula::forward_kl{}, 2);
    for (const kd::loss_meter& sums : run_split(s, loss, b, {10, 40}).sums) found.push_back(kd::text_of(sums.fault()));
    return found;
  };
  logit_rows b = random_rows(2, 40, 5);
  auto bad = b;
  bad.student[40 + 13] = NAN;
  CHECK(faults(bad) == std::vector<std::string>{"logits too far apart for float at row 1",
                                                "student logits have a NaN at row 1, class 13"});
  bad = b;
  bad.student[40 + 7] = -INFINITY;
  CHECK(holds(faults(bad)[0], "masked in the student at row 1, class 7"));
  bad = b;
  bad.labels[1] = 40;
  for (const std::string& fault : faults(bad)) CHECK(holds(fault, "no class of the logits, it is 40 at row 1"));
  bad = b;
  bad.labels[1] = 25;
  bad.student[40 + 25] = -INFINITY;
  CHECK(holds(faults(bad)[1], "the student's logit of the label is minus infinity at row 1, class 25"));
}

TEST_CASE("cuda split_vocabulary: a slice outside of the vocabulary is refused", "[cuda][split_vocabulary][errors]") {
  const kd::cuda::stream s;
  guarded_array<float> x(s, std::vector<float>(8));
  guarded_array<std::int32_t> label(s, std::vector<std::int32_t>{0});
  using loss_type = decltype(mixed(kd::formula::forward_kl{}, 2));
  guarded_array<loss_type> loss(s, std::vector<loss_type>{mixed(kd::formula::forward_kl{}, 2)});
  guarded_array<kd::cuda::slice_row<loss_type>> record(s, 1);
  const kd::formula::logit_batch<float> batch = {
      .rows = 1, .classes = 4, .student = {x.data()}, .teacher = {x.data() + 4}, .labels = {label.data()}};
  const auto message = [&](const kd::cuda::vocabulary_slice& slice, kd::cuda::slice_row<loss_type>* out) {
    return message_of<kd::argument_error>(
        [&] { kd::cuda::read_slice(s, batch, static_cast<const loss_type*>(loss.data()), slice, out); });
  };
  CHECK(holds(message({5, 8}, record.data()), "the slice must lie in [0,8)", "[5,9)"));
  CHECK(holds(message({9, 8}, record.data()), "the slice must lie in [0,8)"));
  CHECK(holds(message({0, std::size_t{1} << 31}, record.data()), "the slice must lie in"));
  CHECK(holds(message({4, 8}, nullptr), "records must not be null"));
}
