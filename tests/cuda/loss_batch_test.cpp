// Batches of logits as people have them: other number formats, strides, groups, ignored rows, weights, divisors, a
// gradient from behind the loss; and what never changes a row's result.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "kd/cuda/graph.hpp"
#include "kd/cuda/logit_loss.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/device_loss.hpp"
#include "support/message.hpp"

namespace {

using kd::formula::divisor;
using kd::formula::logit_batch;
using kd::kernel::float16;
using kd_test::bfloat16;
using kd_test::guarded_array;
using kd_test::loss_variant;
using kd_test::rounded_to;
using kd_test::to_floats;
using kd_test::variants_for;
using loss = kd::formula_of<kd::distillation>;

constexpr kd::distillation options{.temperature = 3, .kd_weight = 0.5f, .ce_weight = 0.7f};
constexpr std::int64_t ignored_label = -7;
constexpr std::size_t width = loss::values + 1;

/// What a batch has beside its logits.
struct habits {
  std::size_t groups = 1, group_rows = 7;
  std::size_t row_gap = 0, group_gap = 0;  // elements behind a row, and behind a group
  std::size_t shift = 0;                   // of all arrays off their alignment
  bool weights = false, upstream = false, upstream_per_row = false, adds = false, ignores = false;
  divisor divide_by = divisor::rows;
  std::size_t teacher_classes = 0;
};

/// Numbers of rows, laid out with gaps.
struct layout {
  std::size_t rows, width, group_rows, row_stride, group_stride;
  layout(const habits& h, std::size_t width_, std::size_t scale = 1)
      : rows(h.groups * h.group_rows),
        width(width_),
        group_rows(h.group_rows),
        row_stride(width + scale * h.row_gap),
        group_stride(group_rows * row_stride + scale * h.group_gap) {}
  std::size_t size() const { return rows / group_rows * group_stride; }
  std::size_t at(std::size_t row) const { return row / group_rows * group_stride + row % group_rows * row_stride; }
  template <class T>
  std::vector<T> spread(const std::vector<T>& dense, T between) const {
    std::vector<T> out(size(), between);
    for (std::size_t row = 0; row < rows; ++row)
      std::copy_n(dense.begin() + static_cast<std::ptrdiff_t>(row * width), width,
                  out.begin() + static_cast<std::ptrdiff_t>(at(row)));
    return out;
  }
};

struct outcome {
  kd::loss_meter sums;
  std::vector<float> gradient;     // [rows,classes]
  std::vector<double> row_values;  // [rows,width]
};

template <class Student, class Teacher, class Gradient, class Label>
struct world {
  habits h;
  std::size_t rows, classes, teacher_classes;
  std::vector<float> z, t, before;  // as their formats hold them
  std::vector<Label> labels;
  std::vector<float> weights, upstream;

  world(const habits& h_, std::size_t classes_)
      : h(h_),
        rows(h.groups * h.group_rows),
        classes(classes_),
        teacher_classes(h.teacher_classes == 0 ? classes : h.teacher_classes),
        z(kd_test::rounded<Student>(kd_test::spread_logits(rows * classes, 8, 1))),
        t(kd_test::rounded<Teacher>(kd_test::spread_logits(rows * teacher_classes, 14, 2))),
        before(kd_test::rounded<Gradient>(kd_test::spread_logits(rows * classes, 1, 3))) {
    for (std::size_t row = 0; row < rows; ++row) {
      labels.push_back(h.ignores && row % 3 == 1 ? static_cast<Label>(ignored_label)
                                                 : static_cast<Label>(row * 31 % classes));
      weights.push_back(row % 4 == 2 ? 0.0f : 0.25f * static_cast<float>(row % 5 + 1));
      upstream.push_back(2 - 0.5f * static_cast<float>(row % 3));
    }
  }
  bool counts(std::size_t row) const { return labels[row] != static_cast<Label>(ignored_label); }
  double weight(std::size_t row) const { return h.weights ? double{weights[row]} : 1; }

  outcome run(loss_variant variant) const {
    const kd::cuda::stream s;
    const layout student(h, classes), teacher(h, teacher_classes, 2), label(h, 1), gradient(h, classes, 3);
    const Gradient nothing = kd::kernel::from_float<Gradient>(std::numeric_limits<float>::quiet_NaN());
    const auto initial = gradient.spread(
        h.adds ? rounded_to<Gradient>(before) : std::vector<Gradient>(rows * classes, nothing), nothing);
    guarded_array<Student> student_logits(s, student.spread(rounded_to<Student>(z), Student{}), h.shift);
    guarded_array<Teacher> teacher_logits(s, teacher.spread(rounded_to<Teacher>(t), Teacher{}), h.shift);
    guarded_array<Label> label_values(s, label.spread(labels, Label{12345}), h.shift);
    guarded_array<Gradient> d(s, initial, h.shift);
    guarded_array<float> row_weights(s, weights), from_behind(s, upstream);
    guarded_array<double> row_values(s, rows * width);
    guarded_array<loss> formula(s, std::vector<loss>{options.formula()});
    guarded_array<std::byte> scratch(s, kd::cuda::logit_loss_scratch<loss>(rows));
    guarded_array<kd::loss_meter> sums(s, std::vector<kd::loss_meter>(1));
    logit_batch<Student, Teacher, Label, Gradient> batch;
    batch.rows = rows;
    batch.classes = classes;
    batch.student = {student_logits.data()};
    batch.teacher = {teacher_logits.data()};
    batch.labels = {label_values.data()};
    batch.gradient = {d.data()};
    if (h.row_gap + h.group_gap != 0 || h.groups > 1) {
      const auto lie = [](auto& array, const layout& l) {
        array.row_stride = l.row_stride;
        array.group_stride = l.group_stride;
      };
      batch.group_rows = h.group_rows;
      lie(batch.student, student), lie(batch.teacher, teacher), lie(batch.labels, label), lie(batch.gradient, gradient);
    }
    batch.teacher_classes = h.teacher_classes;
    batch.ignore_index = ignored_label;
    if (h.weights) batch.row_weights = row_weights.data();
    if (h.upstream) batch.upstream = from_behind.data();
    batch.upstream_per_row = h.upstream_per_row;
    batch.add_to_gradient = h.adds;
    batch.divide_by = h.divide_by;
    batch.row_values = row_values.data();
    kd::cuda::logit_loss_forward_backward(s, batch, static_cast<const loss*>(formula.data()), scratch.data(),
                                          sums.data(), variant);
    scratch.values();
    outcome out{sums.values()[0], {}, row_values.values()};
    auto written = d.values();
    for (std::size_t row = 0; row < rows; ++row)
      for (std::size_t c = 0; c < classes; ++c) {
        out.gradient.push_back(kd::kernel::to_float(written[gradient.at(row) + c]));
        written[gradient.at(row) + c] = initial[gradient.at(row) + c];
      }
    REQUIRE(kd_test::same_bits(written, initial));  // nothing between the rows
    return out;
  }

  /// Against each row's definition in float64, as a batch of its own.
  void require_definition(const outcome& got) const {
    const auto T = double{options.temperature}, steepest = double{options.ce_weight} + double{options.kd_weight} * T;
    double divide_by = h.divide_by == divisor::rows ? static_cast<double>(rows) : h.divide_by == divisor::one ? 1 : 0;
    double counted = 0, total = 0, cross_entropy = 0;
    for (std::size_t row = 0; row < rows; ++row) {
      if (!counts(row)) continue;
      counted += 1;
      if (h.divide_by == divisor::valid_rows) divide_by += 1;
      if (h.divide_by == divisor::weights) divide_by += weight(row);
    }
    if (divide_by == 0) divide_by = 1;
    std::vector<double> want_gradient, want_values;
    for (std::size_t row = 0; row < rows; ++row) {
      std::vector<float> p(classes, -INFINITY);
      std::copy_n(t.begin() + static_cast<std::ptrdiff_t>(row * teacher_classes), std::min(classes, teacher_classes),
                  p.begin());
      const auto label = static_cast<std::int32_t>(counts(row) ? labels[row] : 0);
      const auto want = kd_test::define_distillation(1, classes, z.data() + row * classes, p.data(), &label, T,
                                                     double{options.kd_weight}, double{options.ce_weight});
      const double in = counts(row) ? 1 : 0;
      for (const double value : {want.kd, want.soft_cross_entropy, want.cross_entropy, want.total})
        want_values.push_back(in * value);
      total += in * weight(row) * want.total / divide_by;
      cross_entropy += in * weight(row) * want.cross_entropy / divide_by;
      const double behind = !h.upstream ? 1 : double{upstream[h.upstream_per_row ? row : 0]};
      for (std::size_t c = 0; c < classes; ++c)
        want_gradient.push_back((h.adds ? double{before[row * classes + c]} : 0) +
                                in * weight(row) * behind / divide_by * want.d_student[c]);
    }
    REQUIRE(got.sums.fault_kind == kd::loss_fault_kind::none);
    REQUIRE(static_cast<double>(got.sums.rows) == counted);
    REQUIRE(got.sums.steps == 1);
    const double tolerance = (1e-6 + 3e-7 * T * T) * std::max(counted, 1.0);
    CHECK(kd_test::close(got.sums.total, counted * total, tolerance));
    CHECK(kd_test::close(got.sums.values[2], counted * cross_entropy, tolerance));
    CHECK(kd_test::near(got.row_values, want_values, {.relative = 1e-6 + 3e-7 * T * T, .scale_at_least = 1}));
    CHECK(kd_test::near(got.gradient, want_gradient,
                        {.absolute = 4e-6 * steepest / divide_by + (h.adds ? 1e-7 : 0) + smallest<Gradient>,
                         .relative = sizeof(Gradient) == 4 ? 0 : kd_test::rounding<Gradient>}));
  }

  /// Numbers near 0 that float16 rounds away.
  template <class T>
  static constexpr double smallest = std::is_same_v<T, float16> ? 0x1p-25 : 0;
};

template <class Student, class Teacher, class Gradient, class Label>
void check(const habits& h, std::size_t classes) {
  for (const loss_variant variant : variants_for(classes)) {
    CAPTURE(classes, variant, h.groups, h.row_gap, h.group_gap, h.shift, h.weights, h.upstream, h.upstream_per_row,
            h.adds, h.ignores, static_cast<int>(h.divide_by), h.teacher_classes);
    const world<Student, Teacher, Gradient, Label> w(h, classes);
    w.require_definition(w.run(variant));
  }
}

}  // namespace

TEST_CASE("cuda loss batches: every number format on either side, labels of 32 and 64 bits", "[cuda][loss_batch]") {
  for (const std::size_t classes : {10u, 19u, 100u, 1032u}) {
    check<float, float, float, std::int64_t>({}, classes);
    check<bfloat16, float, float, std::int32_t>({}, classes);
    check<float, bfloat16, bfloat16, std::int32_t>({.adds = true}, classes);
    check<float16, bfloat16, float16, std::int64_t>({.ignores = true}, classes);
    check<bfloat16, bfloat16, bfloat16, std::int32_t>({.shift = 1}, classes);
  }
}

TEST_CASE("cuda loss batches: ignored rows, weights, divisors, and a gradient from behind", "[cuda][loss_batch]") {
  for (const std::size_t classes : {10u, 28u, 100u, 1030u})
    for (const divisor by : {divisor::rows, divisor::valid_rows, divisor::weights, divisor::one})
      for (const bool ignores : {false, true}) {
        check<float, float, float, std::int32_t>({.ignores = ignores, .divide_by = by}, classes);
        check<float, float, float, std::int32_t>(
            {.weights = true, .upstream = true, .upstream_per_row = ignores, .ignores = ignores, .divide_by = by},
            classes);
        check<float, float, float, std::int32_t>({.upstream = true, .adds = true, .ignores = ignores, .divide_by = by},
                                                 classes);
      }
}

TEST_CASE("cuda loss batches: rows with gaps, in groups with gaps", "[cuda][loss_batch]") {
  for (const std::size_t classes : {10u, 24u, 99u, 100u, 1028u})
    for (const std::size_t gap : {0u, 1u, 4u}) {
      check<float, float, float, std::int32_t>({.row_gap = gap}, classes);
      check<float, float, float, std::int32_t>({.groups = 3, .group_rows = 2, .row_gap = gap, .group_gap = gap},
                                               classes);
      check<bfloat16, float, bfloat16, std::int64_t>(
          {.groups = 2, .group_rows = 3, .row_gap = gap, .group_gap = 8, .adds = true, .ignores = true}, classes);
    }
}

TEST_CASE("cuda loss batches: a teacher of fewer classes, or of more", "[cuda][loss_batch]") {
  for (const std::size_t classes : {10u, 24u, 100u, 1028u})
    for (const std::size_t teacher : {classes - 4, classes - 3, classes + 1, classes + 8}) {
      check<float, float, float, std::int32_t>({.teacher_classes = teacher}, classes);
      check<float, bfloat16, float, std::int32_t>({.row_gap = 4, .teacher_classes = teacher}, classes);
    }
}

TEST_CASE("cuda loss batches: a row's result depends on its logits alone, neither on the batch nor on addresses",
          "[cuda][loss_batch]") {
  const auto check_type = [&]<class Logit>(Logit) {
    for (const std::size_t classes : {10u, 12u, 20u, 31u, 64u, 99u, 100u, 256u, 500u, 1000u, 1001u, 1032u, 3001u}) {
      const habits plain{.divide_by = divisor::one};
      for (const loss_variant variant : variants_for(classes)) {
        CAPTURE(classes, variant, sizeof(Logit));
        const auto usual = world<Logit, Logit, Logit, std::int32_t>(plain, classes).run(variant);
        for (const habits& other : {habits{.shift = 1}, habits{.shift = 3}, habits{.row_gap = 1},
                                    habits{.row_gap = 4, .shift = 2}, habits{.group_rows = 4}}) {
          habits h = other;
          h.divide_by = divisor::one;
          const auto got = world<Logit, Logit, Logit, std::int32_t>(h, classes).run(variant);
          const auto same = [](const auto& some, auto all) {
            all.resize(some.size());
            return kd_test::same_bits(some, all);
          };
          REQUIRE(same(got.row_values, usual.row_values));
          REQUIRE(same(got.gradient, usual.gradient));
        }
      }
      // Rows and sums in one launch, or in two: the same registers.
      if (classes <= 32) {
        const world<Logit, Logit, Logit, std::int32_t> w(plain, classes);
        REQUIRE(kd_test::same_bits(w.run(loss_variant::one_block).gradient, w.run(loss_variant::registers).gradient));
      }
    }
  };
  check_type(float{});
  check_type(bfloat16{});
}

TEST_CASE("cuda loss batches: a plain one gives what a dense one gives, to the bit", "[cuda][loss_batch]") {
  for (const std::size_t classes : {10u, 20u, 100u, 1000u, 1030u})
    for (const loss_variant variant : variants_for(classes)) {
      CAPTURE(classes, variant);
      const kd_test::loss_batch b = kd_test::random_batch(5, classes, 4);
      const auto run = [&]<class Batch>(Batch) {
        const kd::cuda::stream s;
        kd_test::loss_arrays<float, loss> arrays(s, b, options.formula(), {});
        kd::cuda::logit_loss_forward_backward(s, arrays.batch<Batch>(), static_cast<const loss*>(arrays.loss.data()),
                                              arrays.scratch.data(), arrays.sums.data(), variant);
        return arrays.outcome();
      };
      const auto dense = run(kd::kernel::dense_batch<float>{}), plain = run(logit_batch<float>{});
      CHECK(kd_test::same_bits(dense.d_student, plain.d_student));
      CHECK(std::memcmp(&dense.sums, &plain.sums, sizeof dense.sums) == 0);
    }
}

TEST_CASE("cuda loss batches: rows that are all ignored give zeros, whatever their logits", "[cuda][loss_batch]") {
  for (const std::size_t classes : {10u, 100u, 1030u})
    for (const loss_variant variant : variants_for(classes))
      for (const divisor by : {divisor::rows, divisor::valid_rows, divisor::weights}) {
        world<float, float, float, std::int32_t> w({.weights = true, .divide_by = by}, classes);
        std::fill(w.labels.begin(), w.labels.end(), static_cast<std::int32_t>(ignored_label));
        std::fill(w.z.begin(), w.z.end(), std::numeric_limits<float>::quiet_NaN());
        const outcome got = w.run(variant);
        CHECK(got.sums.fault_kind == kd::loss_fault_kind::none);
        CHECK(got.sums.rows == 0);
        CHECK(got.sums.steps == 1);
        CHECK(got.sums.total == 0.0);
        CHECK(std::all_of(got.gradient.begin(), got.gradient.end(), [](float d) { return d == 0; }));
        CHECK(std::all_of(got.row_values.begin(), got.row_values.end(), [](double v) { return v == 0; }));
      }
}

TEST_CASE("cuda loss batches: a row's weight that is negative or not finite is a fault", "[cuda][loss_batch]") {
  for (const std::size_t classes : {10u, 100u, 1030u})
    for (const loss_variant variant : variants_for(classes))
      for (const float bad : {-1.0f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        world<float, float, float, std::int32_t> w({.weights = true, .divide_by = divisor::weights}, classes);
        w.weights[4] = bad;
        const outcome got = w.run(variant);
        CHECK(got.sums.fault_kind == kd::loss_fault_kind::row_weight);
        CHECK(got.sums.fault_row == 4);
        CHECK(kd_test::holds(kd::text_of(got.sums.fault()), "weight", "row 4"));
      }
}

TEST_CASE("cuda loss batches: somebody's stream, a loss as people set it, and its record read on request",
          "[cuda][loss_batch]") {
  for (const std::size_t classes : {10u, 100u, 1030u}) {
    const kd_test::loss_batch b = kd_test::random_batch(5, classes, 4);
    const auto want = kd_test::run_loss<float>(b, options);
    const kd::cuda::stream owner;
    const kd::cuda::stream_view s(owner.get());
    kd_test::loss_arrays<float, loss> arrays(owner, b, kd::distillation{}.formula(), {});
    const auto run = [&] {
      kd::cuda::logit_loss_forward_backward(s, arrays.batch<logit_batch<float>>(), options, arrays.scratch.data(),
                                            arrays.sums.data());
    };
    run();
    const kd::loss_meter once = kd::cuda::read_loss(s, arrays.sums.data());
    CHECK(std::memcmp(&once, &want.sums, sizeof once) == 0);
    CHECK(kd_test::same_bits(arrays.outcome().d_student, want.d_student));
    // Nothing in it waits for the host.
    const auto recorded = kd::cuda::graph::capture(owner, run);
    recorded.launch(owner);
    recorded.launch(owner);
    const kd::loss_meter three_times = kd::cuda::read_loss(s, arrays.sums.data());
    CHECK(three_times.steps == 3);
    CHECK(kd_test::close(three_times.total, 3 * want.sums.total, 1e-12));
    CHECK(kd_test::holds(kd_test::message_of<kd::argument_error>([&] {
                           kd::cuda::logit_loss_forward_backward(s, arrays.batch(), kd::distillation{.temperature = 0},
                                                                 arrays.scratch.data(), arrays.sums.data());
                         }),
                         "temperature"));
  }
}

TEST_CASE("cuda loss batches: a divisor that is counted is recorded as well", "[cuda][loss_batch]") {
  const kd_test::loss_batch b = kd_test::random_batch(4, 100, 4);
  const kd::cuda::stream s;
  kd_test::loss_arrays<float, loss> arrays(s, b, options.formula(), {});
  auto batch = arrays.batch<logit_batch<float>>();
  batch.divide_by = divisor::valid_rows;
  s.synchronize();
  const auto recorded = kd::cuda::graph::capture(s, [&] {
    kd::cuda::logit_loss_forward_backward(s, batch, static_cast<const loss*>(arrays.loss.data()), arrays.scratch.data(),
                                          arrays.sums.data());
  });
  // Labels change between launches, and with them the divisor.
  auto labels = b.labels;
  for (const std::size_t ignored : {1u, 2u}) {
    labels[ignored] = -100;
    kd::cuda::upload(s, labels.data(), labels.size(), arrays.labels.data());
    recorded.launch(s);
  }
  CHECK(kd::cuda::read_loss(s, arrays.sums.data()).rows == 5);
}

TEST_CASE("cuda loss batches: float16 converts as IEEE 754 says", "[cuda][loss_batch]") {
  using kd::kernel::from_float, kd::kernel::to_float;
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const float16 half{static_cast<std::uint16_t>(bits)};
    const float value = to_float(half);
    const int exponent = static_cast<int>(bits >> 10 & 31u), fraction = static_cast<int>(bits & 0x3ffu);
    const float sign = bits & 0x8000u ? -1.0f : 1.0f;
    if (exponent == 31) {
      if (fraction != 0) {
        REQUIRE(value != value);
        continue;
      }
      REQUIRE(value == sign * std::numeric_limits<float>::infinity());
    } else {
      const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                            : std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
      REQUIRE(value == sign * magnitude);
    }
    REQUIRE(from_float<float16>(value).bits == half.bits);
    // Half way to the next one goes to the even one, a little beyond to the next.
    if (exponent == 31) continue;
    const float next =
        exponent == 30 && fraction == 0x3ff ? sign * 65536.0f : to_float(float16{static_cast<std::uint16_t>(bits + 1)});
    const float middle = value + (next - value) / 2;
    REQUIRE(from_float<float16>(middle).bits == half.bits + (half.bits & 1u));
    REQUIRE(from_float<float16>(std::nextafter(middle, next)).bits == half.bits + 1u);
  }
  REQUIRE(std::isnan(to_float(from_float<float16>(std::numeric_limits<float>::quiet_NaN()))));
}

TEST_CASE("cuda loss batches: what cannot be is named", "[cuda][loss_batch]") {
  const kd::cuda::stream s;
  kd::cuda::buffer<float> logits(400);
  kd::cuda::buffer<std::int32_t> labels(4);
  kd::cuda::buffer<std::byte> scratch(kd::cuda::logit_loss_scratch<loss>(4));
  kd::cuda::buffer<kd::loss_meter> sums(1);
  const auto message = [&](const auto& change) {
    logit_batch<float> batch;
    batch.rows = 4;
    batch.classes = 10;
    batch.student = {logits.data()};
    batch.teacher = {logits.data() + 100};
    batch.labels = {labels.data()};
    batch.gradient = {logits.data() + 200};
    change(batch);
    return kd_test::message_of<kd::argument_error>([&] {
      kd::cuda::logit_loss_forward_backward(s, batch, reinterpret_cast<const loss*>(logits.data()), scratch.data(),
                                            sums.data());
    });
  };
  using batch = logit_batch<float>;
  CHECK(kd_test::holds(message([](batch& b) { b.student.row_stride = 9; }),
                       "row_stride of the student must be 0 or at least 10", "received 9"));
  CHECK(kd_test::holds(message([](batch& b) { b.group_rows = 2, b.labels.group_stride = 1; }),
                       "group_stride of the labels must be 0 or at least 2", "received 1"));
  CHECK(kd_test::holds(
      message([](batch& b) { b.gradient = {const_cast<float*>(b.student.data)}, b.add_to_gradient = true; }),
      "added to must not be the student's"));
  CHECK(kd_test::holds(
      message([](batch& b) { b.gradient = {const_cast<float*>(b.student.data)}, b.gradient.row_stride = 12; }),
      "must not share memory with the logits", "same type and strides"));
  CHECK(kd_test::holds(message([](batch& b) { b.gradient = {const_cast<float*>(b.teacher.data) + 5}; }),
                       "must not share memory with the logits"));
}
