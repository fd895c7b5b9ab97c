#include "kd/cuda/cross_entropy.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/device_loss.hpp"
#include "support/message.hpp"

namespace {

using kd::loss_fault_kind;
using kd_test::bfloat16;
using kd_test::gradient;
using kd_test::loss_batch;
using kd_test::loss_call;
using kd_test::loss_outcome;
using kd_test::loss_variant;
using kd_test::random_batch;
using kd_test::run_loss;
using kd_test::variants_for;

template <class Logit>
loss_outcome run(const loss_batch& b, loss_call call = {}) {
  call.teacher = false;
  return run_loss<Logit>(b, {}, call);
}
template <class Logit>
void require_definition(const loss_batch& b, const loss_outcome& got) {
  kd_test::require_definition<Logit>(b, {}, got, false);
}

/// What is left of an edge row's fault without its teacher.
loss_fault_kind fault_without_teacher(loss_fault_kind fault) {
  switch (fault) {
    case loss_fault_kind::teacher_nan:
    case loss_fault_kind::teacher_infinite:
    case loss_fault_kind::teacher_all_masked:
    case loss_fault_kind::class_masked_in_student_only:
    case loss_fault_kind::overflow:  // of the gap between student and teacher
      return loss_fault_kind::none;
    default:
      return fault;
  }
}

}  // namespace

TEST_CASE("cuda cross_entropy: every edge row on every kernel, whatever the teacher", "[cuda][cross_entropy]") {
  const auto check = [&]<class Logit>(Logit) {
    for (const kd_test::loss_edge_row& edge : kd_test::loss_edge_rows()) {
      const std::size_t classes = edge.student.size();
      const loss_fault_kind fault = fault_without_teacher(edge.fault);
      for (const loss_variant variant : variants_for(classes)) {
        // Blocks know nothing of other rows; that they find theirs is seen at few classes.
        const bool alone = variant == loss_variant::block_per_row && classes > 16;
        const std::size_t rows = alone ? 1 : 5, at = alone ? 0 : 3;
        CAPTURE(edge.name, variant, rows, sizeof(Logit));
        const loss_batch b = kd_test::batch_around(edge, rows, at);
        const loss_outcome got = run<Logit>(b, {.variant = variant});
        if (fault == loss_fault_kind::none) {
          require_definition<Logit>(b, got);
          continue;
        }
        REQUIRE(got.sums.fault_kind == static_cast<std::uint32_t>(fault));
        REQUIRE(got.sums.fault_row == at);
        REQUIRE(got.sums.fault_class == edge.fault_class);
      }
    }
  };
  check(float{});
  check(bfloat16{});
}

TEST_CASE("cuda cross_entropy: value and gradient match the float64 definition", "[cuda][cross_entropy]") {
  for (const std::size_t classes : {1u,   2u,   3u,   10u,  31u,  32u,   33u,   64u,   65u,   128u,
                                    129u, 256u, 257u, 512u, 513u, 1000u, 1024u, 1025u, 2049u, 5000u})
    for (const std::size_t rows : {1u, 3u, 33u}) {
      if (rows * classes > 8000) continue;
      const loss_batch b = random_batch(rows, classes, static_cast<std::uint32_t>(rows));
      for (const loss_variant variant : variants_for(classes)) {
        if (variant == loss_variant::block_per_row && rows > 3) continue;
        CAPTURE(classes, rows, variant);
        require_definition<float>(b, run<float>(b, {.variant = variant}));
        require_definition<bfloat16>(b, run<bfloat16>(b, {.variant = variant}));
      }
    }
}

TEST_CASE("cuda cross_entropy: rows at every alignment, the gradient apart, in place, or not at all",
          "[cuda][cross_entropy]") {
  for (const std::size_t classes : {12u, 104u, 1030u})
    for (const loss_variant variant : variants_for(classes))
      for (std::size_t shift = 0; shift < 5; ++shift) {
        CAPTURE(classes, variant, shift);
        const loss_batch b = random_batch(2, classes, 5);
        const auto apart = run<float>(b, {.variant = variant, .shift = shift, .gradient_shift = shift / 4});
        require_definition<float>(b, apart);
        const auto in_place = run<float>(b, {.variant = variant, .to = gradient::in_place, .shift = shift});
        require_definition<float>(b, in_place);
        const auto value = run<float>(b, {.variant = variant, .to = gradient::none, .shift = shift});
        CHECK(value.sums.total == in_place.sums.total);
      }
}

TEST_CASE("cuda cross_entropy: it is the distillation loss without its KD part", "[cuda][cross_entropy]") {
  for (const std::size_t classes : {10u, 300u, 1100u}) {
    const loss_batch b = random_batch(3, classes, 51);
    const auto alone = run<float>(b);
    const auto part = run_loss<float>(b, {.temperature = 3, .kd_weight = 0, .ce_weight = 1});
    CHECK(kd_test::close(part.sums.cross_entropy, alone.sums.cross_entropy, 1e-6));
    CHECK(alone.sums.total == alone.sums.cross_entropy);
    CHECK(alone.sums.kd == 0.0);
    CHECK(alone.sums.agrees == 0.0);
    CHECK(alone.sums.correct == part.sums.correct);
    CHECK(kd_test::near(part.d_student, alone.d_student, {.of_largest = 1e-6}));
  }
}

TEST_CASE("cuda cross_entropy: steps add up; the first row at fault stops that", "[cuda][cross_entropy]") {
  for (const std::size_t classes : {10u, 100u, 1030u}) {
    CAPTURE(classes);
    const loss_batch a = random_batch(3, classes, 1), b = random_batch(5, classes, 2);
    const auto alone_a = run<float>(a).sums, alone_b = run<float>(b).sums;
    const auto both = run<float>(b, {.before = alone_a}).sums;
    CHECK(both.total == alone_a.total + alone_b.total);
    CHECK(both.rows == 8);
    CHECK(both.steps == 2);
    loss_batch bad = b;
    bad.student[4 * classes] = std::numeric_limits<float>::infinity();
    bad.labels[1] = static_cast<std::int32_t>(classes);
    const auto stopped = run<float>(bad, {.before = both}).sums;
    CHECK(stopped.total == both.total);
    CHECK(stopped.fault_kind == static_cast<std::uint32_t>(loss_fault_kind::label_out_of_range));
    CHECK(stopped.fault_row == 1);
    CHECK(stopped.fault_class == classes);
    CHECK(stopped.fault_step == 2);
    const auto after = run<float>(a, {.before = stopped}).sums;
    CHECK(std::memcmp(&after, &stopped, sizeof after) == 0);
  }
}

TEST_CASE("cuda cross_entropy: finite logits 6e38 apart are no fault", "[cuda][cross_entropy]") {
  for (const loss_variant variant : variants_for(3)) {
    const auto sums = run<float>({1, 3, {3e38f, -3e38f, 0}, {0, 0, 0}, {1}}, {.variant = variant}).sums;
    CHECK(sums.fault_kind == 0);
    CHECK(kd_test::close(sums.cross_entropy, 6e38, 1e-6));
  }
}

TEST_CASE("cuda cross_entropy: the gradient is the numeric derivative of the value", "[cuda][cross_entropy]") {
  for (const loss_variant variant : variants_for(7)) {
    loss_batch b = random_batch(2, 7, 21);
    const loss_outcome at = run<float>(b, {.variant = variant});
    for (std::size_t i = 0; i < 14; ++i) {
      const float x = b.student[i], h = 1.0f / 64;
      const auto total = [&](float shifted) {
        b.student[i] = shifted;
        return run<float>(b, {.variant = variant, .to = gradient::none}).sums.total / 2;
      };
      const double slope = (total(x + h) - total(x - h)) / (2.0 * h);
      b.student[i] = x;
      // Rounding 1e-7 / h = 1e-5, curvature h^2 / 6.
      REQUIRE(kd_test::near(at.d_student[i], slope, {.absolute = 1e-4}));
    }
  }
}

TEST_CASE("cuda cross_entropy: no rows change nothing; bad arguments are named", "[cuda][cross_entropy]") {
  kd::kernel::loss_sums before = {};
  before.steps = 4;
  const auto none = run<float>(loss_batch{0, 10, {}, {}, {}}, {.before = before}).sums;
  CHECK(std::memcmp(&none, &before, sizeof before) == 0);
  const kd::cuda::stream s;
  kd::cuda::buffer<float> logits(40);
  const auto message = kd_test::message_of<kd::argument_error>([&] {
    kd::cuda::cross_entropy_forward_backward(s, 4, 10, static_cast<const float*>(logits.data()), nullptr, logits.data(),
                                             reinterpret_cast<std::byte*>(logits.data()), nullptr);
  });
  CHECK(kd_test::holds(message, "cross_entropy_forward_backward: labels must not be null"));
}
