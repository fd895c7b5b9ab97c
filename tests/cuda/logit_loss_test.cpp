#include "kd/cuda/logit_loss.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "kd/cuda/graph.hpp"
#include "kd/formula/reverse_kl.hpp"
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
using kd_test::require_definition;
using kd_test::run_loss;
using kd_test::variants_for;

bool all_nan(const std::vector<float>& values, std::size_t begin, std::size_t end) {
  for (std::size_t i = begin; i < end; ++i)
    if (values[i] == values[i]) return false;
  return true;
}

bool same_meter(const kd::loss_meter& a, const kd::loss_meter& b) { return std::memcmp(&a, &b, sizeof a) == 0; }

template <class Logit>
void check_edge_rows() {
  for (const kd_test::loss_edge_row& edge : kd_test::loss_edge_rows()) {
    const std::size_t classes = edge.student.size();
    const kd::distillation options{.temperature = edge.temperature, .kd_weight = 0.5f, .ce_weight = 0.5f};
    for (const loss_variant variant : variants_for(classes))
      for (const std::size_t rows : {1u, 5u}) {
        // Blocks know nothing of other rows; that they find theirs is seen at few classes.
        if (variant == loss_variant::block_per_row && rows > 1 && classes > 16) continue;
        if (variant == loss_variant::registers && rows == 1 && classes > 65) continue;
        CAPTURE(edge.name, variant, rows, sizeof(Logit));
        const std::size_t at = rows == 1 ? 0 : 3;
        const loss_batch b = kd_test::batch_around(edge, rows, at);
        const loss_outcome got = run_loss<Logit>(b, options, {.variant = variant});
        if (edge.fault == loss_fault_kind::none) {
          require_definition<Logit>(b, options, got);
          continue;
        }
        REQUIRE(got.sums.fault_kind == edge.fault);
        REQUIRE(got.sums.fault_row == at);
        REQUIRE(got.sums.fault_class == edge.fault_class);
        REQUIRE(got.sums.steps == 0);
        REQUIRE(got.sums.rows == 0);
        REQUIRE(got.sums.total == 0);
        REQUIRE(all_nan(got.d_student, at * classes, (at + 1) * classes));
      }
  }
}

}  // namespace

TEST_CASE("cuda logit_loss: every edge row on every kernel", "[cuda][logit_loss]") { check_edge_rows<float>(); }

TEST_CASE("cuda logit_loss: every edge row on every kernel, bf16", "[cuda][logit_loss]") {
  check_edge_rows<bfloat16>();
}

TEST_CASE("cuda logit_loss: value and gradient match the float64 definition", "[cuda][logit_loss]") {
  const float temperatures[] = {2, 1, 4, 0.05f, 1.01f, 100};
  std::size_t turn = 0;
  for (const std::size_t classes :
       {1u,   2u,   3u,   10u,  16u,  17u,  31u,   32u,   33u,   63u,   64u,   65u,   100u,  127u, 128u,
        129u, 255u, 256u, 257u, 512u, 513u, 1000u, 1023u, 1024u, 1025u, 2049u, 5000u, 8192u, 9001u})
    for (const std::size_t rows : {1u, 2u, 3u, 5u, 33u}) {
      if (rows * classes > 12000) continue;
      const loss_batch b = random_batch(rows, classes, static_cast<std::uint32_t>(rows));
      for (const loss_variant variant : variants_for(classes)) {
        if (variant == loss_variant::block_per_row && rows > 3) continue;  // its rows know nothing of each other
        const float T = temperatures[turn++ % 6];
        CAPTURE(classes, rows, variant, T);
        const kd::distillation options{.temperature = T, .kd_weight = 0.3f, .ce_weight = 0.6f};
        require_definition<float>(b, options, run_loss<float>(b, options, {.variant = variant}));
        require_definition<bfloat16>(b, options, run_loss<bfloat16>(b, options, {.variant = variant}));
      }
    }
}

TEST_CASE("cuda logit_loss: every temperature on every kernel", "[cuda][logit_loss]") {
  for (const std::size_t classes : {10u, 20u, 100u, 1001u, 9000u})
    for (const float T : {0.05f, 1.0f, 1.01f, 2.0f, 4.0f, 100.0f})
      for (const loss_variant variant : variants_for(classes)) {
        CAPTURE(classes, T, variant);
        const loss_batch b = random_batch(2, classes, 7);
        const kd::distillation options{.temperature = T, .kd_weight = 0.9f, .ce_weight = 0.1f};
        require_definition<float>(b, options, run_loss<float>(b, options, {.variant = variant}));
      }
}

TEST_CASE("cuda logit_loss: the kernel that a shape gets, up to many rows", "[cuda][logit_loss]") {
  using kd::cuda::detail::loss_variant_for;
  CHECK(loss_variant_for(128, 10) == loss_variant::one_block);
  CHECK(loss_variant_for(512, 32) == loss_variant::one_block);
  CHECK(loss_variant_for(513, 32) == loss_variant::registers);
  CHECK(loss_variant_for(128, 33) == loss_variant::registers);
  CHECK(loss_variant_for(1, 1024) == loss_variant::registers);
  CHECK(loss_variant_for(1, 1025) == loss_variant::block_per_row);
  // More than one sweep of the block; more than one row for each thread of the fold; blocks of one warp and of four.
  for (const auto& [rows, classes] : std::vector<std::pair<std::size_t, std::size_t>>{
           {127, 10}, {128, 10}, {129, 10}, {301, 17}, {512, 3}, {513, 3}, {4097, 2}, {1025, 33}}) {
    CAPTURE(rows, classes);
    const loss_batch b = random_batch(rows, classes, 3);
    const kd::distillation options{.temperature = 2, .kd_weight = 0.25f, .ce_weight = 0.75f};
    require_definition<float>(b, options, run_loss<float>(b, options));
  }
}

// Rows of which a thread sums groups of classes at once: what is not an ordinary number is at the first and the last
// place of a group, of a single pack and of the rest.
TEST_CASE("cuda logit_loss: masks, ties and faults in long rows", "[cuda][logit_loss]") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  // Each temperature at each place and each number of classes, not in each combination.
  std::size_t turn = 0;
  for (const std::size_t classes : {1027u, 4096u, 9001u})
    for (const std::size_t at : {std::size_t{0}, std::size_t{5}, std::size_t{511}, std::size_t{515}, classes - 1}) {
      const float T = std::array{1.0f, 2.0f, 4.0f}[turn++ % 3];
      const kd::distillation options{.temperature = T, .kd_weight = 0.5f, .ce_weight = 0.5f};
      const auto check = [&]<class Logit>(Logit) {
        CAPTURE(classes, at, T, sizeof(Logit));
        loss_batch b = random_batch(2, classes, static_cast<std::uint32_t>(at));
        b.labels[1] = static_cast<std::int32_t>(at == 7 ? 8 : 7);
        const loss_outcome plain = run_loss<Logit>(b, options);
        require_definition<Logit>(b, options, plain);
        float& z = b.student[classes + at];
        float& t = b.teacher[classes + at];
        const auto fault = [&] { return run_loss<Logit>(b, options).sums.fault_kind; };
        // The first of equal largest logits, and one that is far above all others: the sums move to it.
        z = t = 500;
        b.labels[1] = static_cast<std::int32_t>(at);
        const loss_outcome far = run_loss<Logit>(b, options);
        require_definition<Logit>(b, options, far);
        CHECK(far.sums.correct >= 1);
        CHECK(far.sums.agrees >= 1);
        b.student[classes + classes / 2] = 500;
        b.labels[1] = static_cast<std::int32_t>(std::min(at, classes / 2));
        CHECK(run_loss<Logit>(b, options).sums.correct == far.sums.correct);
        b.student[classes + classes / 2] = 0;
        b.labels[1] = static_cast<std::int32_t>(at == 7 ? 8 : 7);
        // Both masked: the class is not there. The teacher alone: it contributes nothing. The student alone:
        // infinite, unless the teacher's probability is 0.
        z = t = -infinity;
        require_definition<Logit>(b, options, run_loss<Logit>(b, options));
        z = 1;
        require_definition<Logit>(b, options, run_loss<Logit>(b, options));
        z = -infinity;
        t = 1;
        CHECK(fault() == loss_fault_kind::class_masked_in_student_only);
        t = -1e4f;
        require_definition<Logit>(b, options, run_loss<Logit>(b, options));
        z = t = std::numeric_limits<float>::quiet_NaN();
        CHECK(fault() == loss_fault_kind::student_nan);
        z = 0;
        CHECK(fault() == loss_fault_kind::teacher_nan);
        t = infinity;
        CHECK(fault() == loss_fault_kind::teacher_infinite);
      };
      check(float{});
      check(bfloat16{});
    }
}

TEST_CASE("cuda logit_loss: rows at every alignment, the gradient apart, in place, or not at all",
          "[cuda][logit_loss]") {
  const kd::distillation options{.temperature = 3, .kd_weight = 0.5f, .ce_weight = 0.5f};
  const auto check = [&]<class Logit>(Logit) {
    for (const std::size_t classes : {12u, 101u, 104u, 1030u})
      for (const loss_variant variant : variants_for(classes)) {
        const loss_batch b = random_batch(3, classes, 5);
        for (std::size_t shift = 0; shift < (classes > 200 ? 9u : 3u); ++shift) {
          CAPTURE(classes, variant, shift, sizeof(Logit));
          const auto apart = run_loss<Logit>(b, options, {.variant = variant, .shift = shift});
          require_definition<Logit>(b, options, apart);
          const auto in_place =
              run_loss<Logit>(b, options, {.variant = variant, .to = gradient::in_place, .shift = shift});
          CHECK(kd_test::same_bits(in_place.d_student, apart.d_student));
          CHECK(in_place.sums.total == apart.sums.total);
          if (shift > 2) continue;
          require_definition<Logit>(b, options,
                                    run_loss<Logit>(b, options, {.variant = variant, .gradient_shift = shift}));
          const auto value = run_loss<Logit>(b, options, {.variant = variant, .to = gradient::none, .shift = shift});
          CHECK(value.sums.total == apart.sums.total);
        }
      }
  };
  check(float{});
  check(bfloat16{});
}

TEST_CASE("cuda logit_loss: equal rows have a KD term and a KD gradient of exactly 0", "[cuda][logit_loss]") {
  for (const std::size_t classes : {2u, 10u, 32u, 65u, 1000u, 1025u, 4097u})
    for (const float T : {0.05f, 1.0f, 1.01f, 2.0f, 3.0f, 100.0f})
      for (const loss_variant variant : variants_for(classes)) {
        if (classes == 4097 && T < 2) continue;
        CAPTURE(classes, T, variant);
        loss_batch b = random_batch(2, classes, 31);
        b.teacher = b.student;
        const kd::distillation options{.temperature = T, .kd_weight = 3, .ce_weight = 0};
        const auto check = [&](const loss_outcome& got) {
          REQUIRE(got["kd"] == 0.0);
          REQUIRE(got.sums.total == 0.0);
          REQUIRE(got.sums.agrees == 2.0);
          for (const float d : got.d_student) REQUIRE(d == 0.0f);
        };
        check(run_loss<float>(b, options, {.variant = variant}));
        check(run_loss<bfloat16>(b, options, {.variant = variant}));
      }
}

TEST_CASE("cuda logit_loss: the gradient is the numeric derivative of the value", "[cuda][logit_loss]") {
  for (const std::size_t classes : {7u, 80u})
    for (const loss_variant variant : variants_for(classes)) {
      loss_batch b = random_batch(2, classes, 21);
      const kd::distillation options{.temperature = 3, .kd_weight = 0.5f, .ce_weight = 0.5f};
      const loss_outcome at = run_loss<float>(b, options, {.variant = variant});
      const std::size_t step = classes == 7 ? 3 : 23;
      for (std::size_t i = 0; i < 2 * classes; i += step) {
        CAPTURE(classes, variant, i);
        const float x = b.student[i], h = 1.0f / 64;
        const auto total = [&](float shifted) {
          b.student[i] = shifted;
          return run_loss<float>(b, options, {.variant = variant, .to = gradient::none}).sums.total / 2;
        };
        const double slope = (total(x + h) - total(x - h)) / (2.0 * h);
        b.student[i] = x;
        // Rounding 1e-7 T^2 / h = 6e-5, curvature h^2 / 6.
        REQUIRE(kd_test::near(at.d_student[i], slope, {.absolute = 2e-4}));
      }
    }
}

TEST_CASE("cuda logit_loss: T^2 is part of the term, and sums are over rows", "[cuda][logit_loss]") {
  // p = (3/4, 1/4), q = (1/2, 1/2) at any T: KL = log 2 - H(p), times T^2.
  for (const float T : {1.0f, 2.0f, 5.0f})
    for (const loss_variant variant : variants_for(2)) {
      loss_batch b{3, 2, std::vector<float>(6, 1.0f), {}, {0, 0, 0}};
      for (int row = 0; row < 3; ++row) b.teacher.insert(b.teacher.end(), {T * std::log(3.0f), 0.0f});
      const auto got = run_loss<float>(b, kd::distillation{.temperature = T}, {.variant = variant});
      const double kl = std::log(2.0) + 0.75 * std::log(0.75) + 0.25 * std::log(0.25);
      CHECK(kd_test::close(got["kd"], 3 * double{T} * T * kl, 3e-6));
      CHECK(kd_test::close(got["soft_cross_entropy"], 3 * double{T} * T * std::log(2.0), 3e-6));
      CHECK(kd_test::close(got["cross_entropy"], 3 * std::log(2.0), 1e-6));
      CHECK(got.sums.correct == 3);
    }
}

TEST_CASE("cuda logit_loss: steps add up, weighted by their rows; a fault stops that and sticks",
          "[cuda][logit_loss]") {
  for (const std::size_t classes : {10u, 100u, 1030u}) {
    CAPTURE(classes);
    const kd::distillation first{.temperature = 2, .kd_weight = 0.25f, .ce_weight = 0.75f},
        second{.temperature = 4, .kd_weight = 0.9f, .ce_weight = 0.1f};
    const loss_batch a = random_batch(3, classes, 1), b = random_batch(5, classes, 2);
    const auto alone_a = run_loss<float>(a, first).sums, alone_b = run_loss<float>(b, second).sums;
    const auto both = run_loss<float>(b, second, {.before = alone_a}).sums;
    CHECK(both.total == alone_a.total + alone_b.total);
    for (std::size_t i = 0; i < kd::formula::most_loss_values; ++i)
      CHECK(both.values[i] == alone_a.values[i] + alone_b.values[i]);
    CHECK(both.correct == alone_a.correct + alone_b.correct);
    CHECK(both.agrees == alone_a.agrees + alone_b.agrees);
    CHECK(both.rows == 8);
    CHECK(both.steps == 2);

    loss_batch bad = b;
    bad.teacher[4 * classes + 1] = std::numeric_limits<float>::infinity();
    bad.student[2 * classes + 7] = std::numeric_limits<float>::quiet_NaN();
    const auto stopped = run_loss<float>(bad, second, {.before = both}).sums;
    CHECK(stopped.total == both.total);
    CHECK(stopped.correct == both.correct);
    CHECK(stopped.rows == 8);
    CHECK(stopped.steps == 2);
    CHECK(stopped.fault_kind == loss_fault_kind::student_nan);
    CHECK(stopped.fault_row == 2);
    CHECK(stopped.fault_class == 7);
    CHECK(stopped.fault_step == 2);

    // Neither a good step nor another fault changes anything.
    bad.student[7] = std::numeric_limits<float>::infinity();
    for (const loss_batch& later : {a, bad}) {
      const auto after = run_loss<float>(later, second, {.before = stopped}).sums;
      CHECK(same_meter(after, stopped));
    }
  }
}

TEST_CASE("cuda logit_loss: rows at fault are not written, all others are, in place as well", "[cuda][logit_loss]") {
  for (const std::size_t classes : {10u, 100u, 1030u}) {
    loss_batch b = random_batch(5, classes, 75);
    b.student[2 * classes + 1] = std::numeric_limits<float>::quiet_NaN();
    const auto apart = run_loss<float>(b, kd::distillation{});
    for (std::size_t i = 0; i < apart.d_student.size(); ++i)
      REQUIRE((apart.d_student[i] != apart.d_student[i]) == (i / classes == 2));
    const auto in_place = run_loss<float>(b, kd::distillation{}, {.to = gradient::in_place});
    for (std::size_t i = 0; i < classes; ++i)
      if (i != 1) REQUIRE(in_place.d_student[2 * classes + i] == b.student[2 * classes + i]);
    CHECK(in_place.sums.fault_class == 1);
  }
}

TEST_CASE("cuda logit_loss: a label out of range is a fault that names the label", "[cuda][logit_loss]") {
  for (const std::size_t classes : {10u, 100u, 1030u})
    for (const std::int32_t label : {-1, static_cast<std::int32_t>(classes), std::numeric_limits<std::int32_t>::min(),
                                     std::numeric_limits<std::int32_t>::max()}) {
      loss_batch b = random_batch(4, classes, 1);
      b.labels[2] = label;
      for (const loss_variant variant : variants_for(classes)) {
        CAPTURE(classes, label, variant);
        const auto got = run_loss<float>(b, kd::distillation{}, {.variant = variant});
        CHECK(got.sums.fault_kind == loss_fault_kind::label_out_of_range);
        CHECK(got.sums.fault_row == 2);
        CHECK(static_cast<std::int64_t>(got.sums.fault_class) == label);
        CHECK(all_nan(got.d_student, 2 * classes, 3 * classes));
        CHECK(kd_test::holds(kd::text_of(got.sums.fault()), "label", "row 2", kd::text(label)));
      }
    }
}

TEST_CASE("cuda logit_loss: hit rates count the first of equal maxima", "[cuda][logit_loss]") {
  for (const std::size_t width : {4u, 400u, 3000u})
    for (const loss_variant variant : variants_for(width)) {
      loss_batch b{4, width, std::vector<float>(4 * width, 0.0f), std::vector<float>(4 * width, 0.0f), {1, 2, 3, 0}};
      const auto peak = [&](std::vector<float>& x, std::size_t row, std::size_t c) { x[row * width + c] = 5; };
      peak(b.student, 0, 1), peak(b.student, 0, width - 1), peak(b.teacher, 0, 1);  // right, agrees: first of two
      peak(b.student, 1, 0), peak(b.student, 1, 2), peak(b.teacher, 1, 2);          // wrong: class 0 comes first
      peak(b.student, 2, width - 1), peak(b.teacher, 2, width - 1);                 // agrees, right only if width is 4
      // All classes tie: class 0, right, agrees.
      CAPTURE(width, variant);
      const auto sums = run_loss<float>(b, kd::distillation{}, {.variant = variant}).sums;
      CHECK(sums.agrees == 3);
      CHECK(sums.correct == (width == 4 ? 3 : 2));
    }
}

TEST_CASE("cuda logit_loss: two runs give the same bits", "[cuda][logit_loss]") {
  for (const std::size_t classes : {10u, 100u, 2049u}) {
    const loss_batch b = random_batch(5, classes, 61);
    const auto one = run_loss<float>(b, kd::distillation{}), two = run_loss<float>(b, kd::distillation{});
    CHECK(same_meter(one.sums, two.sums));
    CHECK(kd_test::same_bits(one.d_student, two.d_student));
  }
}

TEST_CASE("cuda logit_loss: a recorded loss follows the loss in device memory", "[cuda][logit_loss]") {
  for (const std::size_t classes : {10u, 100u, 1030u}) {
    CAPTURE(classes);
    const loss_batch b = random_batch(3, classes, 8);
    const kd::cuda::stream s;
    using loss = kd::formula_of<kd::distillation>;
    kd_test::loss_arrays<float, loss> arrays(s, b, kd::distillation{}.formula(), {});
    s.synchronize();
    const auto recorded = kd::cuda::graph::capture(s, [&] {
      kd::cuda::logit_loss_forward_backward(s, arrays.batch(), static_cast<const loss*>(arrays.loss.data()),
                                            arrays.scratch.data(), arrays.sums.data());
    });
    kd::loss_meter want = {};
    for (const float T : {2.0f, 1.0f, 5.0f}) {
      const kd::distillation options{.temperature = T, .kd_weight = 0.1f * T, .ce_weight = 0.25f};
      const loss changed = options.formula();
      kd::cuda::upload(s, &changed, 1, arrays.loss.data());
      recorded.launch(s);
      const auto direct = run_loss<float>(b, options, {.before = want});
      want = direct.sums;
      const auto got = arrays.outcome();
      CHECK(same_meter(got.sums, want));
      CHECK(kd_test::same_bits(got.d_student, direct.d_student));
    }
    CHECK(want.steps == 3);
  }
}

TEST_CASE("cuda logit_loss: no rows change nothing; bad arguments are named", "[cuda][logit_loss]") {
  const kd::cuda::stream s;
  kd::loss_meter before = {};
  before.total = 3;
  before.steps = 4;
  const auto none = run_loss<float>(loss_batch{0, 10, {}, {}, {}}, kd::distillation{}, {.before = before}).sums;
  CHECK(same_meter(none, before));

  using loss = kd::formula_of<kd::distillation>;
  kd::cuda::buffer<float> logits(4 * 1025), of_teacher(4 * 1025), numbers(sizeof(loss) / sizeof(float) + 1);
  kd::cuda::buffer<std::int32_t> labels(4);
  kd::cuda::buffer<std::byte> scratch(kd::cuda::logit_loss_scratch<loss>(4) + 8);
  kd::cuda::buffer<kd::loss_meter> sums(1);
  const auto call = [&](const float* teacher, const std::int32_t* label, std::size_t classes, std::byte* room,
                        loss_variant variant) {
    return kd_test::message_of<kd::argument_error>([&] {
      const kd::formula::logit_batch<float> batch{.rows = 4,
                                                  .classes = classes,
                                                  .student = {logits.data()},
                                                  .teacher = {teacher},
                                                  .labels = {label},
                                                  .gradient = {logits.data()}};
      kd::cuda::logit_loss_forward_backward(s, batch, reinterpret_cast<const loss*>(numbers.data()), room, sums.data(),
                                            variant);
    });
  };
  using enum loss_variant;
  CHECK(kd_test::holds(call(nullptr, labels.data(), 10, scratch.data(), automatic), "teacher logits must not be null"));
  CHECK(kd_test::holds(call(of_teacher.data(), nullptr, 10, scratch.data(), automatic),
                       "logit_loss_forward_backward: labels must not be null"));
  const auto named = [&](std::size_t classes, std::byte* room, loss_variant variant) {
    return call(of_teacher.data(), labels.data(), classes, room, variant);
  };
  CHECK(kd_test::holds(named(0, scratch.data(), automatic), "classes must lie in [1,2147483647]", "received 0"));
  CHECK(kd_test::holds(named(10, nullptr, automatic), "scratch must not be null"));
  CHECK(kd_test::holds(named(10, scratch.data() + 4, automatic), "aligned to 8 bytes", "4 beyond"));
  CHECK(kd_test::holds(named(33, scratch.data(), one_block), "at most 32 classes", "received 33"));
  CHECK(kd_test::holds(named(1025, scratch.data(), registers), "at most 1024 classes", "received 1025"));
  CHECK(kd_test::holds(named(10, scratch.data(), static_cast<loss_variant>(9)), "must be one of loss_variant",
                       "received 9"));
}

// ---- cross entropy alone: no teacher, and one kind of exponentials

namespace {

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

TEST_CASE("cuda logit_loss: cross entropy of every edge row, whatever the teacher", "[cuda][logit_loss]") {
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
        const loss_outcome got = run_loss<Logit>(b, kd::cross_entropy{}, {.variant = variant});
        if (fault == loss_fault_kind::none) {
          require_definition<Logit>(b, kd::cross_entropy{}, got);
          continue;
        }
        REQUIRE(got.sums.fault_kind == fault);
        REQUIRE(got.sums.fault_row == at);
        REQUIRE(got.sums.fault_class == edge.fault_class);
      }
    }
  };
  check(float{});
  check(bfloat16{});
}

TEST_CASE("cuda logit_loss: value and gradient of cross entropy match the float64 definition", "[cuda][logit_loss]") {
  for (const std::size_t classes : {1u, 2u, 10u, 31u, 33u, 64u, 65u, 128u, 257u, 513u, 1024u, 1025u, 5000u})
    for (const std::size_t rows : {1u, 3u, 33u}) {
      if (rows * classes > 8000) continue;
      const loss_batch b = random_batch(rows, classes, static_cast<std::uint32_t>(rows));
      for (const loss_variant variant : variants_for(classes)) {
        if (variant == loss_variant::block_per_row && rows > 3) continue;
        CAPTURE(classes, rows, variant);
        require_definition<float>(b, kd::cross_entropy{},
                                  run_loss<float>(b, kd::cross_entropy{}, {.variant = variant}));
        require_definition<bfloat16>(b, kd::cross_entropy{},
                                     run_loss<bfloat16>(b, kd::cross_entropy{}, {.variant = variant}));
      }
    }
}

TEST_CASE("cuda logit_loss: cross entropy is the distillation loss without its KD part", "[cuda][logit_loss]") {
  for (const std::size_t classes : {10u, 300u, 1100u}) {
    const loss_batch b = random_batch(3, classes, 51);
    const auto alone = run_loss<float>(b, kd::cross_entropy{});
    const auto part = run_loss<float>(b, kd::distillation{.temperature = 3, .kd_weight = 0, .ce_weight = 1});
    CHECK(kd_test::close(part["cross_entropy"], alone["cross_entropy"], 1e-6));
    CHECK(alone.sums.total == alone["cross_entropy"]);
    CHECK(alone.sums.agrees == 0.0);
    CHECK(alone.sums.correct == part.sums.correct);
    CHECK(kd_test::near(part.d_student, alone.d_student, {.of_largest = 1e-6}));
  }
}

TEST_CASE("cuda logit_loss: finite logits 6e38 apart are no fault of cross entropy", "[cuda][logit_loss]") {
  for (const loss_variant variant : variants_for(3)) {
    const loss_batch b{1, 3, {3e38f, -3e38f, 0}, {0, 0, 0}, {1}};
    const auto got = run_loss<float>(b, kd::cross_entropy{}, {.variant = variant});
    CHECK(got.sums.fault_kind == loss_fault_kind::none);
    CHECK(kd_test::close(got["cross_entropy"], 6e38, 1e-6));
  }
}

// ---- reverse KL: moments under the student's weight, and a gradient that reads the gap

namespace {

using reverse = kd::distillation_with<kd::formula::reverse_kl>;

kd_test::loss_definition define_reverse_kl(const loss_batch& b, double T) {
  kd_test::loss_definition out;
  const auto temperature = static_cast<float>(T);
  const kd::formula::logit_loss loss{temperature, temperature, true,
                                     kd::formula::weighted{1.0f, kd::formula::reverse_kl{}}};
  for (std::size_t row = 0; row < b.rows; ++row) {
    const auto row_of = [&](const std::vector<float>& x) {
      return std::vector<double>(x.begin() + row * b.classes, x.begin() + (row + 1) * b.classes);
    };
    const auto one = kd_test::define_loss(loss, row_of(b.student), row_of(b.teacher), 0);
    out.total += one.total / static_cast<double>(b.rows);
    for (const double d : one.d_student) out.d_student.push_back(d / static_cast<double>(b.rows));
  }
  return out;
}

}  // namespace

TEST_CASE("cuda logit_loss: reverse KL and its gradient match the float64 definition", "[cuda][logit_loss]") {
  for (const std::size_t classes : {2u, 10u, 20u, 40u, 100u, 200u, 400u, 1000u, 1025u, 3001u})
    for (const float T : {1.0f, 2.0f, 3.0f})
      for (const loss_variant variant : variants_for(classes)) {
        CAPTURE(classes, T, variant);
        loss_batch b = random_batch(2, classes, 5);
        // Masked in both; and in the student alone, which adds nothing.
        if (classes > 2) b.student[1] = b.teacher[1] = b.student[classes + 2] = -INFINITY;
        const auto want = define_reverse_kl(b, double{T});
        const auto got =
            run_loss<float>(b, reverse{.temperature = T, .kd_weight = 1, .ce_weight = 0}, {.variant = variant});
        REQUIRE(got.sums.fault_kind == loss_fault_kind::none);
        REQUIRE(kd_test::close(got["reverse_kl"] / 2, want.total, 1e-6 + 3e-6 * double{T * T}));
        REQUIRE(kd_test::near(got.d_student, want.d_student, {.absolute = 3e-6 * double{T}}));
      }
}

TEST_CASE("cuda logit_loss: a class that one side alone masks is a fault of the losses that it makes infinite",
          "[cuda][logit_loss]") {
  for (const std::size_t classes : {5u, 20u, 100u, 900u, 1030u, 2501u})
    for (const float T : {1.0f, 2.0f, 3.0f})
      for (const loss_variant variant : variants_for(classes)) {
        CAPTURE(classes, T, variant);
        loss_batch b = random_batch(2, classes, 9);
        b.labels = {0, 0};
        b.teacher[classes + 3] = b.teacher[classes + 4] = -INFINITY;
        b.student[classes + 4] = 6;  // the likelier one
        const reverse by_student{.temperature = T};
        const kd::distillation by_teacher{.temperature = T};
        const auto got = run_loss<float>(b, by_student, {.variant = variant});
        CHECK(got.sums.fault_kind == loss_fault_kind::class_masked_in_teacher_only);
        CHECK(got.sums.fault_row == 1);
        CHECK(got.sums.fault_class == 4);
        CHECK(all_nan(got.d_student, classes, 2 * classes));
        CHECK_FALSE(all_nan(got.d_student, 0, classes));
        require_definition<float>(b, by_teacher, run_loss<float>(b, by_teacher, {.variant = variant}));

        std::swap(b.student, b.teacher);
        CHECK(run_loss<float>(b, by_student, {.variant = variant}).sums.fault_kind == loss_fault_kind::none);
        const auto other = run_loss<float>(b, by_teacher, {.variant = variant}).sums;
        CHECK(other.fault_kind == loss_fault_kind::class_masked_in_student_only);
        CHECK(other.fault_class == 4);

        // Where the other side's probability is 0 in float, a mask is no fault; nor does the far peak hide one.
        std::swap(b.student, b.teacher);
        b.student[classes] = 2000;
        const auto far = run_loss<float>(b, by_student, {.variant = variant});
        CHECK(far.sums.fault_kind == loss_fault_kind::none);
        const auto want = define_reverse_kl(b, double{T});
        CHECK(kd_test::close(far["reverse_kl"] / 2, want.total, 1e-6 + 3e-6 * double{T * T}));
        b.teacher[classes] = -INFINITY;
        const auto peak = run_loss<float>(b, by_student, {.variant = variant}).sums;
        CHECK(peak.fault_kind == loss_fault_kind::class_masked_in_teacher_only);
        CHECK(peak.fault_class == 0);
      }
}
