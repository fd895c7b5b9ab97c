#include "kd/cpu/logit_loss.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kd/loss/cross_entropy.hpp"
#include "kd/loss/distillation.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/loss_definitions.hpp"
#include "support/loss_edge_rows.hpp"
#include "support/message.hpp"

namespace {

struct batch {
  std::size_t rows = 0, classes = 0;
  std::vector<float> student, teacher;
  std::vector<std::int32_t> labels;
};

struct outcome {
  kd::loss_result result;
  std::vector<float> d_student;
};

batch random_batch(std::size_t rows, std::size_t classes, std::uint32_t which) {
  batch b{rows,
          classes,
          kd_test::spread_logits(rows * classes, 8, which),
          kd_test::spread_logits(rows * classes, 14, which + 1),
          {}};
  for (std::size_t row = 0; row < rows; ++row) b.labels.push_back(static_cast<std::int32_t>(row * 31 % classes));
  return b;
}

kd::formula::logit_batch<float> arrays(const batch& b, const float* teacher, float* gradient) {
  return {.rows = b.rows,
          .classes = b.classes,
          .student = {b.student.data()},
          .teacher = {teacher},
          .labels = {b.labels.data()},
          .gradient = {gradient}};
}

/// The fused loss at any width, from a gradient buffer full of sevens and scratch full of NaN.
template <std::size_t Width = kd::cpu::native_width>
outcome fused(const batch& b, const kd::distillation& options, int threads = 1) {
  outcome out{{}, std::vector<float>(b.rows * b.classes, 7.0f)};
  const kd::cpu::parallel par{threads};
  std::vector<std::byte> scratch(kd::cpu::logit_loss_scratch(par, b.rows, b.classes), std::byte{0xFF});
  out.result = kd::cpu::detail::fused_loss<Width>(
      "distillation", par, arrays(b, b.teacher.data(), out.d_student.data()), options.formula(), scratch);
  return out;
}

/// Rounding of one KL is about 1e-7 of an exponential; T^2 multiplies it.
double value_tolerance(double T) { return 1e-6 + 3e-7 * T * T; }

/// `slack`: 4 for the portable twin, which adds up to 1,024 floats one by one.
void check_against_definition(const batch& b, const kd::distillation& options, const outcome& got, double slack = 1) {
  const auto want =
      kd_test::define_distillation(b.rows, b.classes, b.student.data(), b.teacher.data(), b.labels.data(),
                                   double{options.temperature}, double{options.kd_weight}, double{options.ce_weight});
  REQUIRE(got.result.finite());
  const kd::loss_terms& terms = got.result.terms;
  const double tolerance = slack * value_tolerance(options.temperature);
  REQUIRE(kd_test::close(terms["cross_entropy"], want.cross_entropy, slack * 1e-6));
  REQUIRE(kd_test::close(terms["kd"], want.kd, tolerance));
  REQUIRE(kd_test::close(terms["soft_cross_entropy"], want.soft_cross_entropy, tolerance));
  REQUIRE(kd_test::close(terms.total, want.total, tolerance));
  REQUIRE(terms["kd"] >= -tolerance);
  REQUIRE(terms.rows == b.rows);
  // Relative to the largest gradient that any row could have, not to this batch's, which may be 0.
  const double largest =
      (options.ce_weight + options.kd_weight * double{options.temperature}) / static_cast<double>(b.rows);
  REQUIRE(kd_test::near(got.d_student, want.d_student, {.absolute = slack * 1e-6 * largest}, "d_student"));
}

template <std::size_t Width>
void check_edge_rows() {
  for (const kd_test::loss_edge_row& edge : kd_test::loss_edge_rows()) {
    CAPTURE(edge.name, Width);
    const kd::distillation options{.temperature = edge.temperature, .kd_weight = 0.5f, .ce_weight = 0.5f};
    const std::size_t classes = edge.student.size();
    const batch alone{1, classes, edge.student, edge.teacher, {edge.label}};
    // The same row as the fourth of a batch longer than a block of lanes, all other rows plain.
    batch among = random_batch(Width + 4, classes, 11);
    std::copy(edge.student.begin(), edge.student.end(),
              among.student.begin() + static_cast<std::ptrdiff_t>(3 * classes));
    std::copy(edge.teacher.begin(), edge.teacher.end(),
              among.teacher.begin() + static_cast<std::ptrdiff_t>(3 * classes));
    among.labels[3] = edge.label;
    for (const batch* b : {&alone, static_cast<const batch*>(&among)}) {
      const outcome got = fused<Width>(*b, options);
      if (edge.fault == kd::loss_fault_kind::none) {
        check_against_definition(*b, options, got, Width == 1 ? 4 : 1);
      } else {
        REQUIRE(static_cast<int>(got.result.fault.kind) == static_cast<int>(edge.fault));
        REQUIRE(got.result.fault.row == (b == &alone ? 0u : 3u));
        REQUIRE(got.result.fault.class_index == edge.fault_class);
      }
    }
  }
}

}  // namespace

TEST_CASE("distillation: every edge row is finite and right, or reported with row and class", "[cpu][distillation]") {
  check_edge_rows<kd::cpu::native_width>();
  check_edge_rows<1>();
}

TEST_CASE("distillation: value and gradient match the float64 definition", "[cpu][distillation]") {
  for (const std::size_t classes : {2u, 3u, 10u, 65u, 100u, 256u, 257u, 1000u, 3001u})
    for (const std::size_t rows : {1u, 2u, 15u, 16u, 17u, 33u}) {
      if (rows * classes > 20000) continue;
      const batch b = random_batch(rows, classes, static_cast<std::uint32_t>(rows));
      for (const float T : {0.05f, 0.5f, 1.0f, 1.01f, 2.0f, 4.0f, 100.0f}) {
        CAPTURE(classes, rows, T);
        const kd::distillation options{.temperature = T, .kd_weight = 0.3f, .ce_weight = 0.6f};
        check_against_definition(b, options, fused(b, options));
        if (rows == 17) check_against_definition(b, options, fused<1>(b, options), 4);
      }
    }
}

TEST_CASE("distillation: 150,000 classes in one row", "[cpu][distillation]") {
  const batch b = random_batch(1, 150000, 5);
  check_against_definition(b, {}, fused(b, {}));
}

TEST_CASE("distillation: the gradient is the numeric derivative of the value", "[cpu][distillation]") {
  for (const std::size_t classes : {7u, 80u})
    for (const float T : {1.0f, 2.0f, 3.0f}) {
      batch b = random_batch(2, classes, 21);
      const kd::distillation options{.temperature = T, .kd_weight = 0.5f, .ce_weight = 0.5f};
      const outcome at = fused(b, options);
      kd_test::comparison gradient("d_student");
      for (std::size_t i = 0; i < 2 * classes; i += 3) {
        const float x = b.student[i], h = 1.0f / 64;
        b.student[i] = x + h;
        const double above = fused(b, options).result.terms.total;
        b.student[i] = x - h;
        const double below = fused(b, options).result.terms.total;
        b.student[i] = x;
        // Rounding 1e-7 T^2 / h = 6e-5, curvature h^2 / 6.
        gradient.add(at.d_student[i], (above - below) / (2.0 * h), 2e-4, i);
      }
      REQUIRE(gradient);
    }
}

TEST_CASE("distillation: equal rows have a KD term and a KD gradient of exactly 0", "[cpu][distillation]") {
  for (const std::size_t classes : {2u, 10u, 65u, 256u, 257u, 1000u, 4097u})
    for (const float T : {0.05f, 1.0f, 1.01f, 2.0f, 3.0f, 100.0f}) {
      CAPTURE(classes, T);
      batch b = random_batch(18, classes, 31);
      b.teacher = b.student;
      const outcome got = fused(b, {.temperature = T, .kd_weight = 3, .ce_weight = 0});
      REQUIRE(got.result.terms["kd"] == 0.0);
      REQUIRE(got.result.terms.total == 0.0);
      REQUIRE(got.result.terms.teacher_agreement == 1.0);
      for (const float d : got.d_student) REQUIRE(d == 0.0f);
      REQUIRE(fused<1>(b, {.temperature = T}).result.terms["kd"] == 0.0);
    }
}

TEST_CASE("distillation: T^2 is part of the term and the mean is over rows", "[cpu][distillation]") {
  // p = (3/4, 1/4), q = (1/2, 1/2) at any T: KL = log 2 - H(p), times T^2; twice the rows, the same mean.
  for (const float T : {1.0f, 2.0f, 5.0f})
    for (const std::size_t rows : {1u, 2u, 20u}) {
      batch b{rows, 2, std::vector<float>(2 * rows, 1.0f), {}, std::vector<std::int32_t>(rows, 0)};
      for (std::size_t row = 0; row < rows; ++row) b.teacher.insert(b.teacher.end(), {T * std::log(3.0f), 0.0f});
      const auto terms = fused(b, {.temperature = T}).result.terms;
      const double kl = std::log(2.0) + 0.75 * std::log(0.75) + 0.25 * std::log(0.25);
      REQUIRE(kd_test::close(terms["kd"], double{T} * T * kl, 3e-6));
      REQUIRE(kd_test::close(terms["soft_cross_entropy"], double{T} * T * std::log(2.0), 3e-6));
      REQUIRE(kd_test::close(terms["cross_entropy"], std::log(2.0), 1e-6));
    }
}

TEST_CASE("distillation: a weight of 0 scales its term to 0 and switches nothing", "[cpu][distillation]") {
  const batch b = random_batch(5, 12, 41);
  const auto both = fused(b, {.temperature = 3, .kd_weight = 0.5f, .ce_weight = 0.5f});
  const auto hard = fused(b, {.temperature = 3, .kd_weight = 0, .ce_weight = 0.5f});
  const auto soft = fused(b, {.temperature = 3, .kd_weight = 0.5f, .ce_weight = 0});
  REQUIRE(hard.result.terms["kd"] == both.result.terms["kd"]);
  REQUIRE(soft.result.terms["cross_entropy"] == both.result.terms["cross_entropy"]);
  REQUIRE(hard.result.terms.total == 0.5 * both.result.terms["cross_entropy"]);
  REQUIRE(soft.result.terms.total == 0.5 * both.result.terms["kd"]);
  kd_test::comparison sum("hard and soft d_student");
  for (std::size_t i = 0; i < both.d_student.size(); ++i)
    sum.add(hard.d_student[i] + soft.d_student[i], both.d_student[i], 1e-7);
  REQUIRE(sum);
}

TEST_CASE("distillation: cross entropy alone equals the distillation loss without its KD part", "[cpu][distillation]") {
  for (const std::size_t classes : {10u, 300u, 2100u}) {
    const batch b = random_batch(17, classes, 51);
    const kd::cpu::parallel par{2};
    std::vector<std::byte> scratch(kd::cpu::logit_loss_scratch(par, b.rows, classes));
    std::vector<float> d(b.rows * classes, 7.0f);
    const auto got =
        kd::cpu::logit_loss_forward_backward(par, arrays(b, nullptr, d.data()), kd::cross_entropy{}, scratch);
    const auto want =
        kd_test::define_distillation(b.rows, classes, b.student.data(), b.teacher.data(), b.labels.data(), 1, 0, 1);
    REQUIRE(got.finite());
    REQUIRE(kd_test::close(got.terms["cross_entropy"], want.cross_entropy, 1e-6));
    REQUIRE(got.terms.total == got.terms["cross_entropy"]);
    REQUIRE(got.terms.terms().size() == 1);
    REQUIRE(got.terms.teacher_agreement == 0.0);
    REQUIRE(kd_test::near(d, want.d_student, {.of_largest = 1e-6}, "d_student"));
    const auto distilled = fused(b, {.temperature = 2, .kd_weight = 0, .ce_weight = 1});
    REQUIRE(distilled.result.terms.accuracy == got.terms.accuracy);
  }
}

TEST_CASE("distillation: results are bit-equal for any number of threads", "[cpu][distillation]") {
  for (const std::size_t classes : {10u, 1100u}) {
    const batch b = random_batch(classes == 10 ? 1700 : 37, classes, 61);
    REQUIRE(b.rows * classes >= kd::cpu::detail::loss_parallel_logits);
    const outcome one = fused(b, {}, 1);
    for (const int threads : {2, 3, 7, 50}) {
      const outcome many = fused(b, {}, threads);
      REQUIRE(std::memcmp(&many.result.terms, &one.result.terms, sizeof(kd::loss_terms)) == 0);
      REQUIRE(many.d_student == one.d_student);
    }
  }
}

TEST_CASE("distillation: the first row at fault is named for any number of threads", "[cpu][distillation]") {
  batch b = random_batch(40, 1000, 71);
  b.student[31 * 1000 + 5] = std::numeric_limits<float>::quiet_NaN();
  b.teacher[22 * 1000 + 999] = std::numeric_limits<float>::infinity();
  for (const int threads : {1, 2, 5}) {
    const auto got = fused(b, {}, threads).result;
    REQUIRE(got.fault.kind == kd::loss_fault_kind::teacher_infinite);
    REQUIRE(got.fault.row == 22);
    REQUIRE(got.fault.class_index == 999);
  }
}

TEST_CASE("distillation: hit rates count the first of equal maxima", "[cpu][distillation]") {
  for (const std::size_t width : {4u, 400u, 3000u}) {  // lane by lane, one tile, several tiles
    batch b{4, width, std::vector<float>(4 * width, 0.0f), std::vector<float>(4 * width, 0.0f), {1, 2, 3, 0}};
    const auto peak = [&](std::vector<float>& x, std::size_t row, std::size_t c) { x[row * width + c] = 5; };
    peak(b.student, 0, 1), peak(b.student, 0, width - 1), peak(b.teacher, 0, 1);  // right, agrees: first of two
    peak(b.student, 1, 0), peak(b.student, 1, 2), peak(b.teacher, 1, 2);          // wrong: class 0 comes first
    peak(b.student, 2, width - 1), peak(b.teacher, 2, width - 1);                 // agrees, right only if width is 4
    // All classes tie: class 0, right, agrees.
    const auto terms = fused(b, {}).result.terms;
    CAPTURE(width);
    REQUIRE(terms.teacher_agreement == 0.75);
    REQUIRE(terms.accuracy == (width == 4 ? 0.75 : 0.5));
  }
}

TEST_CASE("distillation: rows at fault are not written, all others are", "[cpu][distillation]") {
  for (const std::size_t classes : {10u, 1100u}) {
    batch b = random_batch(5, classes, 75);
    b.student[2 * classes + 1] = std::numeric_limits<float>::quiet_NaN();
    const outcome got = fused(b, {});
    REQUIRE(got.result.fault.row == 2);
    for (std::size_t i = 0; i < got.d_student.size(); ++i) REQUIRE((got.d_student[i] == 7.0f) == (i / classes == 2));
  }
}

TEST_CASE("distillation: logits are only read, unless the gradient is asked for in place", "[cpu][distillation]") {
  for (const std::size_t classes : {10u, 1500u}) {
    batch b = random_batch(18, classes, 81);
    const batch before = b;
    const outcome apart = fused(b, {});
    REQUIRE(b.student == before.student);
    REQUIRE(b.teacher == before.teacher);

    const kd::cpu::parallel par{1};
    std::vector<std::byte> scratch(kd::cpu::logit_loss_scratch(par, b.rows, classes));
    const auto in_place = kd::cpu::logit_loss_forward_backward(par, arrays(b, b.teacher.data(), b.student.data()),
                                                               kd::distillation{}, scratch);
    REQUIRE(in_place.terms.total == apart.result.terms.total);
    REQUIRE(b.student == apart.d_student);

    const auto value_only = kd::cpu::logit_loss_forward_backward(par, arrays(before, b.teacher.data(), nullptr),
                                                                 kd::distillation{}, scratch);
    REQUIRE(value_only.terms.total == apart.result.terms.total);
  }
}

TEST_CASE("distillation: streamed gradients equal cached ones at every alignment, and stay inside",
          "[cpu][distillation]") {
  using namespace kd::cpu::detail;
  constexpr std::size_t width = kd::cpu::native_width, classes = 133;
  const batch b = random_batch(3, classes, 91);
  const kd::cpu::parallel par{1};
  std::vector<float> cached(3 * classes);
  const auto loss = kd::distillation{}.formula();
  using call = loss_call<std::remove_const_t<decltype(loss)>, float, float, std::int32_t, float>;
  std::vector<loss_row<call::Loss>> rows(3);
  std::vector<float> room(loss_thread_floats(classes) + 16);
  const auto run = [&](float* gradient, bool stream) {
    const auto arguments = arrays(b, b.teacher.data(), gradient);
    loss_of_rows<width, student_exponentials::squared>(
        par, call{loss, arguments, 3.0, stream ? writing::streamed : writing::plain}, counted_rows{nullptr, 3, 3.0},
        rows.data(), room.data());
  };
  run(cached.data(), false);
  for (std::size_t offset = 0; offset < 17; ++offset) {
    std::vector<float> streamed(3 * classes + 34, 7.0f);
    run(streamed.data() + offset, true);
    for (std::size_t i = 0; i < streamed.size(); ++i) {
      const bool inside = i >= offset && i < offset + 3 * classes;
      REQUIRE(streamed[i] == (inside ? cached[i - offset] : 7.0f));
    }
  }
}

TEST_CASE("distillation: bad arguments are named; no rows give terms of 0", "[cpu][distillation]") {
  batch b = random_batch(4, 10, 95);
  const kd::cpu::parallel par{1};
  std::vector<std::byte> scratch(kd::cpu::logit_loss_scratch(par, 4, 10));
  std::vector<float> d(40);
  const auto call = [&](const float* teacher, std::size_t classes, std::size_t bytes) {
    auto arguments = arrays(b, teacher, d.data());
    arguments.classes = classes;
    return kd_test::message_of([&] {
      kd::cpu::logit_loss_forward_backward(par, arguments, kd::distillation{}, std::span(scratch).first(bytes));
    });
  };
  const auto begins = [](const std::string& text, const std::string& part) { return text.rfind(part, 0) == 0; };
  REQUIRE(begins(call(b.teacher.data(), 10, scratch.size()), "nothing was thrown"));
  REQUIRE(begins(call(nullptr, 10, scratch.size()), "distillation: teacher logits must not be null"));
  REQUIRE(begins(call(b.teacher.data(), 0, scratch.size()), "distillation: there must be at least one class"));
  REQUIRE(
      begins(call(b.teacher.data(), 10, scratch.size() - 1),
             kd::text("distillation: scratch must have ", scratch.size(), " bytes, received ", scratch.size() - 1)));
  b.labels[2] = 10;
  REQUIRE(
      begins(call(b.teacher.data(), 10, scratch.size()), "distillation: label 2 must be in [0, 10), received 10; "));
  REQUIRE(begins(kd_test::message_of([&] {
                   kd::cpu::logit_loss_forward_backward(par, arrays(b, b.teacher.data(), d.data()),
                                                        kd::distillation{.temperature = 0}, scratch);
                 }),
                 "distillation: temperature must be"));
  const auto none =
      kd::cpu::logit_loss_forward_backward(par, kd::formula::logit_batch<float>{.classes = 10}, kd::distillation{}, {});
  REQUIRE(none.finite());
  REQUIRE(none.terms.rows == 0);
  REQUIRE(none.terms.total == 0.0);
  REQUIRE(none.terms["kd"] == 0.0);
}
