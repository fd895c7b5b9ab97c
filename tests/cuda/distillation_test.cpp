#include "kd/cuda/distillation.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kd/cuda/graph.hpp"
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
        REQUIRE(got.sums.fault_kind == static_cast<std::uint32_t>(edge.fault));
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

TEST_CASE("cuda distillation: every edge row on every kernel", "[cuda][distillation]") { check_edge_rows<float>(); }

TEST_CASE("cuda distillation: every edge row on every kernel, bf16", "[cuda][distillation]") {
  check_edge_rows<bfloat16>();
}

TEST_CASE("cuda distillation: value and gradient match the float64 definition", "[cuda][distillation]") {
  const float temperatures[] = {2, 1, 4, 0.05f, 1.01f, 100};
  std::size_t turn = 0;
  for (const std::size_t classes :
       {1u,   2u,   3u,   10u,  16u,  17u,  31u,  32u,   33u,   63u,   64u,   65u,   100u, 127u,
        128u, 129u, 255u, 256u, 257u, 512u, 513u, 1000u, 1023u, 1024u, 1025u, 2049u, 5000u})
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

TEST_CASE("cuda distillation: every temperature on every kernel", "[cuda][distillation]") {
  for (const std::size_t classes : {10u, 20u, 100u, 1001u})
    for (const float T : {0.05f, 1.0f, 1.01f, 2.0f, 4.0f, 100.0f})
      for (const loss_variant variant : variants_for(classes)) {
        CAPTURE(classes, T, variant);
        const loss_batch b = random_batch(2, classes, 7);
        const kd::distillation options{.temperature = T, .kd_weight = 0.9f, .ce_weight = 0.1f};
        require_definition<float>(b, options, run_loss<float>(b, options, {.variant = variant}));
      }
}

TEST_CASE("cuda distillation: the kernel that a shape gets, up to many rows", "[cuda][distillation]") {
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

TEST_CASE("cuda distillation: rows at every alignment, the gradient apart, in place, or not at all",
          "[cuda][distillation]") {
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

TEST_CASE("cuda distillation: equal rows have a KD term and a KD gradient of exactly 0", "[cuda][distillation]") {
  for (const std::size_t classes : {2u, 10u, 32u, 65u, 1000u, 1025u, 4097u})
    for (const float T : {0.05f, 1.0f, 1.01f, 2.0f, 3.0f, 100.0f})
      for (const loss_variant variant : variants_for(classes)) {
        if (classes == 4097 && T < 2) continue;
        CAPTURE(classes, T, variant);
        loss_batch b = random_batch(2, classes, 31);
        b.teacher = b.student;
        const kd::distillation options{.temperature = T, .kd_weight = 3, .ce_weight = 0};
        const auto check = [&](const loss_outcome& got) {
          REQUIRE(got.sums.kd == 0.0);
          REQUIRE(got.sums.total == 0.0);
          REQUIRE(got.sums.agrees == 2.0);
          for (const float d : got.d_student) REQUIRE(d == 0.0f);
        };
        check(run_loss<float>(b, options, {.variant = variant}));
        check(run_loss<bfloat16>(b, options, {.variant = variant}));
      }
}

TEST_CASE("cuda distillation: the gradient is the numeric derivative of the value", "[cuda][distillation]") {
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

TEST_CASE("cuda distillation: T^2 is part of the term, and sums are over rows", "[cuda][distillation]") {
  // p = (3/4, 1/4), q = (1/2, 1/2) at any T: KL = log 2 - H(p), times T^2.
  for (const float T : {1.0f, 2.0f, 5.0f})
    for (const loss_variant variant : variants_for(2)) {
      loss_batch b{3, 2, std::vector<float>(6, 1.0f), {}, {0, 0, 0}};
      for (int row = 0; row < 3; ++row) b.teacher.insert(b.teacher.end(), {T * std::log(3.0f), 0.0f});
      const auto sums = run_loss<float>(b, {.temperature = T}, {.variant = variant}).sums;
      const double kl = std::log(2.0) + 0.75 * std::log(0.75) + 0.25 * std::log(0.25);
      CHECK(kd_test::close(sums.kd, 3 * double{T} * T * kl, 3e-6));
      CHECK(kd_test::close(sums.soft_cross_entropy, 3 * double{T} * T * std::log(2.0), 3e-6));
      CHECK(kd_test::close(sums.cross_entropy, 3 * std::log(2.0), 1e-6));
      CHECK(sums.correct == 3);
    }
}

TEST_CASE("cuda distillation: steps add up, weighted by their rows; a fault stops that and sticks",
          "[cuda][distillation]") {
  for (const std::size_t classes : {10u, 100u, 1030u}) {
    CAPTURE(classes);
    const kd::distillation first{.temperature = 2, .kd_weight = 0.25f, .ce_weight = 0.75f},
        second{.temperature = 4, .kd_weight = 0.9f, .ce_weight = 0.1f};
    const loss_batch a = random_batch(3, classes, 1), b = random_batch(5, classes, 2);
    const auto alone_a = run_loss<float>(a, first).sums, alone_b = run_loss<float>(b, second).sums;
    const auto both = run_loss<float>(b, second, {.before = alone_a}).sums;
    CHECK(both.total == alone_a.total + alone_b.total);
    CHECK(both.cross_entropy == alone_a.cross_entropy + alone_b.cross_entropy);
    CHECK(both.kd == alone_a.kd + alone_b.kd);
    CHECK(both.soft_cross_entropy == alone_a.soft_cross_entropy + alone_b.soft_cross_entropy);
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
    CHECK(stopped.fault_kind == static_cast<std::uint32_t>(loss_fault_kind::student_nan));
    CHECK(stopped.fault_row == 2);
    CHECK(stopped.fault_class == 7);
    CHECK(stopped.fault_step == 2);

    // Neither a good step nor another fault changes anything.
    bad.student[7] = std::numeric_limits<float>::infinity();
    for (const loss_batch& later : {a, bad}) {
      const auto after = run_loss<float>(later, second, {.before = stopped}).sums;
      CHECK(std::memcmp(&after, &stopped, sizeof after) == 0);
    }
  }
}

TEST_CASE("cuda distillation: rows at fault are not written, all others are, in place as well",
          "[cuda][distillation]") {
  for (const std::size_t classes : {10u, 100u, 1030u}) {
    loss_batch b = random_batch(5, classes, 75);
    b.student[2 * classes + 1] = std::numeric_limits<float>::quiet_NaN();
    const auto apart = run_loss<float>(b, {});
    for (std::size_t i = 0; i < apart.d_student.size(); ++i)
      REQUIRE((apart.d_student[i] != apart.d_student[i]) == (i / classes == 2));
    const auto in_place = run_loss<float>(b, {}, {.to = gradient::in_place});
    for (std::size_t i = 0; i < classes; ++i)
      if (i != 1) REQUIRE(in_place.d_student[2 * classes + i] == b.student[2 * classes + i]);
    CHECK(in_place.sums.fault_class == 1);
  }
}

TEST_CASE("cuda distillation: a label out of range is a fault that names the label", "[cuda][distillation]") {
  for (const std::size_t classes : {10u, 100u, 1030u})
    for (const std::int32_t label : {-1, static_cast<std::int32_t>(classes), std::numeric_limits<std::int32_t>::min(),
                                     std::numeric_limits<std::int32_t>::max()}) {
      loss_batch b = random_batch(4, classes, 1);
      b.labels[2] = label;
      for (const loss_variant variant : variants_for(classes)) {
        CAPTURE(classes, label, variant);
        const auto got = run_loss<float>(b, {}, {.variant = variant});
        CHECK(got.sums.fault_kind == static_cast<std::uint32_t>(loss_fault_kind::label_out_of_range));
        CHECK(got.sums.fault_row == 2);
        CHECK(static_cast<std::int64_t>(got.sums.fault_class) == label);
        CHECK(all_nan(got.d_student, 2 * classes, 3 * classes));
        const kd::loss_fault fault{static_cast<loss_fault_kind>(got.sums.fault_kind),
                                   static_cast<std::size_t>(got.sums.fault_row),
                                   static_cast<std::size_t>(got.sums.fault_class)};
        CHECK(kd_test::holds(kd::text_of(fault), "label", "row 2", kd::text(label)));
      }
    }
}

TEST_CASE("cuda distillation: hit rates count the first of equal maxima", "[cuda][distillation]") {
  for (const std::size_t width : {4u, 400u, 3000u})
    for (const loss_variant variant : variants_for(width)) {
      loss_batch b{4, width, std::vector<float>(4 * width, 0.0f), std::vector<float>(4 * width, 0.0f), {1, 2, 3, 0}};
      const auto peak = [&](std::vector<float>& x, std::size_t row, std::size_t c) { x[row * width + c] = 5; };
      peak(b.student, 0, 1), peak(b.student, 0, width - 1), peak(b.teacher, 0, 1);  // right, agrees: first of two
      peak(b.student, 1, 0), peak(b.student, 1, 2), peak(b.teacher, 1, 2);          // wrong: class 0 comes first
      peak(b.student, 2, width - 1), peak(b.teacher, 2, width - 1);                 // agrees, right only if width is 4
      // All classes tie: class 0, right, agrees.
      CAPTURE(width, variant);
      const auto sums = run_loss<float>(b, {}, {.variant = variant}).sums;
      CHECK(sums.agrees == 3);
      CHECK(sums.correct == (width == 4 ? 3 : 2));
    }
}

TEST_CASE("cuda distillation: two runs give the same bits", "[cuda][distillation]") {
  for (const std::size_t classes : {10u, 100u, 2049u}) {
    const loss_batch b = random_batch(5, classes, 61);
    const auto one = run_loss<float>(b, {}), two = run_loss<float>(b, {});
    CHECK(std::memcmp(&one.sums, &two.sums, sizeof one.sums) == 0);
    CHECK(kd_test::same_bits(one.d_student, two.d_student));
  }
}

TEST_CASE("cuda distillation: a recorded loss follows the options in device memory", "[cuda][distillation]") {
  for (const std::size_t classes : {10u, 100u, 1030u}) {
    CAPTURE(classes);
    const loss_batch b = random_batch(3, classes, 8);
    const kd::cuda::stream s;
    kd_test::guarded_array<float> student(s, b.student), teacher(s, b.teacher), d(s, b.student.size()),
        numbers(s, std::vector<float>{2, 0.5f, 0.5f});
    kd_test::guarded_array<std::int32_t> labels(s, b.labels);
    kd_test::guarded_array<std::byte> scratch(s, kd::cuda::distillation_scratch(3, classes));
    kd_test::guarded_array<kd::kernel::loss_sums> sums(s, std::vector<kd::kernel::loss_sums>(1));
    s.synchronize();
    const auto recorded = kd::cuda::graph::capture(s, [&] {
      kd::cuda::distillation_forward_backward(s, 3, classes, static_cast<const float*>(student.data()),
                                              static_cast<const float*>(teacher.data()), labels.data(), numbers.data(),
                                              d.data(), scratch.data(), sums.data());
    });
    kd::kernel::loss_sums want = {};
    for (const float T : {2.0f, 1.0f, 5.0f}) {
      const kd::distillation options{.temperature = T, .kd_weight = 0.1f * T, .ce_weight = 0.25f};
      const float changed[] = {options.temperature, options.kd_weight, options.ce_weight};
      kd::cuda::upload(s, changed, 3, numbers.data());
      recorded.launch(s);
      const auto direct = run_loss<float>(b, options, {.before = want});
      want = direct.sums;
      const auto got = sums.values()[0];
      CHECK(std::memcmp(&got, &want, sizeof got) == 0);
      CHECK(kd_test::same_bits(d.values(), direct.d_student));
    }
    CHECK(want.steps == 3);
  }
}

TEST_CASE("cuda distillation: no rows change nothing; bad arguments are named", "[cuda][distillation]") {
  const kd::cuda::stream s;
  kd::kernel::loss_sums before = {};
  before.total = 3;
  before.steps = 4;
  const auto none = run_loss<float>(loss_batch{0, 10, {}, {}, {}}, {}, {.before = before}).sums;
  CHECK(std::memcmp(&none, &before, sizeof before) == 0);

  kd::cuda::buffer<float> logits(40), numbers(3);
  kd::cuda::buffer<std::int32_t> labels(4);
  kd::cuda::buffer<std::byte> scratch(kd::cuda::distillation_scratch(4, 10) + 8);
  kd::cuda::buffer<kd::kernel::loss_sums> sums(1);
  const auto call = [&](const float* teacher, std::size_t classes, std::byte* room, loss_variant variant) {
    return kd_test::message_of<kd::argument_error>([&] {
      kd::cuda::distillation_forward_backward(s, 4, classes, static_cast<const float*>(logits.data()), teacher,
                                              labels.data(), numbers.data(), logits.data(), room, sums.data(), variant);
    });
  };
  using enum loss_variant;
  CHECK(kd_test::holds(call(nullptr, 10, scratch.data(), automatic), "teacher must not be null"));
  CHECK(kd_test::holds(call(logits.data(), 0, scratch.data(), automatic), "classes must lie in [1,2147483647]",
                       "received 0"));
  CHECK(kd_test::holds(call(logits.data(), 10, nullptr, automatic), "scratch must not be null"));
  CHECK(kd_test::holds(call(logits.data(), 10, scratch.data() + 4, automatic), "aligned to 8 bytes", "4 beyond"));
  CHECK(kd_test::holds(call(logits.data(), 33, scratch.data(), one_block), "at most 32 classes", "received 33"));
  CHECK(kd_test::holds(call(logits.data(), 1025, scratch.data(), registers), "at most 1024 classes", "received 1025"));
  CHECK(kd_test::holds(call(logits.data(), 10, scratch.data(), static_cast<loss_variant>(9)),
                       "must be one of loss_variant", "received 9"));
}
