/// The inputs and outputs of the CPU's losses as people have them: formats, strides, ignored rows, weights,
/// vocabularies.
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kd/cpu/logit_loss.hpp"
#include "kd/formula/losses.hpp"
#include "kd/loss/cross_entropy.hpp"
#include "kd/loss/distillation.hpp"
#include "kd/loss/formula_of.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/loss_edge_rows.hpp"
#include "support/message.hpp"

namespace {

using namespace kd::formula;
using kd::cpu::detail::from_float;
using kd::cpu::detail::to_float;

constexpr float infinity = std::numeric_limits<float>::infinity(), no_number = std::numeric_limits<float>::quiet_NaN();
/// Lane by lane, one tile, and several: at their ends and between.
constexpr std::size_t widths[] = {2, 10, 65, 256, 257, 1024, 1025, 2500};

struct rows_of_logits {
  std::size_t rows, classes;
  std::vector<float> student, teacher;
  std::vector<std::int32_t> labels;
};
rows_of_logits random_rows(std::size_t rows, std::size_t classes, std::uint32_t which = 5) {
  rows_of_logits b{rows,
                   classes,
                   kd_test::spread_logits(rows * classes, 8, which),
                   kd_test::spread_logits(rows * classes, 14, which + 1),
                   {}};
  for (std::size_t row = 0; row < rows; ++row) b.labels.push_back(static_cast<std::int32_t>(row * 31 % classes));
  return b;
}
template <class T>
std::vector<T> in_format(const std::vector<float>& x) {
  std::vector<T> out;
  for (const float v : x) out.push_back(from_float<T>(v));
  return out;
}
template <class T>
std::vector<float> in_floats(const std::vector<T>& x) {
  std::vector<float> out;
  for (const T v : x) out.push_back(to_float(v));
  return out;
}

logit_batch<float> arrays(const rows_of_logits& b, std::vector<float>& gradient) {
  gradient.assign(b.rows * b.classes, 7.0f);
  return {.rows = b.rows,
          .classes = b.classes,
          .student = {b.student.data()},
          .teacher = {b.teacher.data()},
          .labels = {b.labels.data()},
          .gradient = {gradient.data()}};
}

template <class Loss, class... Types>
kd::loss_result run(const Loss& loss, const logit_batch<Types...>& batch, int threads = 1) {
  const kd::cpu::parallel par{threads};
  std::vector<std::byte> scratch(kd::cpu::logit_loss_scratch(par, batch.rows, batch.classes), std::byte{0xFF});
  return kd::cpu::logit_loss_forward_backward(par, batch, loss, scratch);
}

void require_same(const kd::loss_result& got, const kd::loss_result& want) {
  REQUIRE(got.finite());
  REQUIRE(want.finite());
  REQUIRE(got.terms.rows == want.terms.rows);
  REQUIRE(got.terms.total == want.terms.total);
  REQUIRE(got.terms.accuracy == want.terms.accuracy);
  REQUIRE(got.terms.teacher_agreement == want.terms.teacher_agreement);
  for (std::size_t i = 0; i < want.terms.size; ++i) REQUIRE(got.terms.list[i].value == want.terms.list[i].value);
}

/// Calls check(loss) for a loss with each kind of exponentials, and for such as need more of a row.
template <class Check>
void with_losses(const Check& check) {
  check(kd::cross_entropy{});
  for (const float T : {1.0f, 2.0f, 3.0f}) check(kd::distillation{.temperature = T, .kd_weight = 0.4f});
  check(kd::distillation_with<jensen_shannon>{.temperature = 2, .kd_weight = 0.4f, .teacher_temperature = 3});
  check(kd::distillation_with<dkd>{.temperature = 4});
  check(kd::distillation_with<standardised_kd>{.temperature = 2});
  check(kd::distillation_with<logit_mse>{.temperature = 2});
}

template <class Student, class Teacher, class Gradient>
void check_formats() {
  with_losses([](const auto& loss) {
    for (const std::size_t classes : widths) {
      CAPTURE(loss.name, classes);
      rows_of_logits b = random_rows(5, classes);
      const auto student = in_format<Student>(b.student);
      const auto teacher = in_format<Teacher>(b.teacher);
      b.student = in_floats(student);
      b.teacher = in_floats(teacher);
      std::vector<float> want;
      const auto expected = run(loss, arrays(b, want));
      const std::vector<std::int64_t> labels(b.labels.begin(), b.labels.end());
      std::vector<Gradient> gradient(b.rows * classes, from_float<Gradient>(7));
      const auto got = run(loss, logit_batch<Student, Teacher, std::int64_t, Gradient>{.rows = b.rows,
                                                                                       .classes = classes,
                                                                                       .student = {student.data()},
                                                                                       .teacher = {teacher.data()},
                                                                                       .labels = {labels.data()},
                                                                                       .gradient = {gradient.data()}});
      require_same(got, expected);
      for (std::size_t i = 0; i < want.size(); ++i)
        REQUIRE(to_float(gradient[i]) == to_float(from_float<Gradient>(want[i])));
    }
  });
}

}  // namespace

TEST_CASE("logit batch: 16-bit logits are the floats that they mean, gradients are rounded once",
          "[cpu][logit_batch]") {
  check_formats<bfloat16, bfloat16, bfloat16>();
  check_formats<bfloat16, float, float>();
  check_formats<float, float16, float>();
  check_formats<float16, bfloat16, float16>();
}

TEST_CASE("logit batch: a 16-bit gradient in the place of its logits is the same", "[cpu][logit_batch]") {
  for (const std::size_t classes : widths)
    with_losses([&](const auto& loss) {
      const rows_of_logits b = random_rows(3, classes);
      auto logits = in_format<bfloat16>(b.student);
      const auto teacher = in_format<float16>(b.teacher);
      auto apart = logits;
      logit_batch<bfloat16, float16> batch{.rows = b.rows,
                                           .classes = classes,
                                           .student = {logits.data()},
                                           .teacher = {teacher.data()},
                                           .labels = {b.labels.data()},
                                           .gradient = {apart.data()}};
      const auto want = run(loss, batch);
      batch.gradient = {logits.data()};
      require_same(run(loss, batch), want);
      for (std::size_t i = 0; i < apart.size(); ++i) REQUIRE(logits[i].bits == apart[i].bits);
    });
}

TEST_CASE("logit batch: rows with strides and in groups are the rows, and what lies between is left alone",
          "[cpu][logit_batch]") {
  for (const std::size_t classes : {10u, 133u, 1025u})
    with_losses([&](const auto& loss) {
      // Groups of two rows, of which the last has one: sequences whose last logits predict nothing, their labels one
      // on.
      const rows_of_logits b = random_rows(5, classes);
      const std::size_t stride = classes + 3, group = 3 * stride + 5;
      const auto place = [&](std::size_t row) { return row / 2 * group + row % 2 * stride; };
      std::vector<float> student(3 * group, no_number), teacher(3 * group, no_number), gradient(3 * group, 7.0f);
      std::vector<std::int32_t> labels(9, 12345);
      for (std::size_t row = 0; row < 5; ++row) {
        for (std::size_t c = 0; c < classes; ++c) {
          student[place(row) + c] = b.student[row * classes + c];
          teacher[place(row) + c] = b.teacher[row * classes + c];
        }
        labels[row / 2 * 3 + row % 2 + 1] = b.labels[row];
      }
      std::vector<float> want;
      const auto expected = run(loss, arrays(b, want));
      require_same(run(loss, logit_batch<float>{.rows = 5,
                                                .classes = classes,
                                                .group_rows = 2,
                                                .student = {student.data(), stride, group},
                                                .teacher = {teacher.data(), stride, group},
                                                .labels = {labels.data() + 1, 0, 3},
                                                .gradient = {gradient.data(), stride, group}}),
                   expected);
      for (std::size_t row = 0; row < 5; ++row)
        for (std::size_t c = 0; c < classes; ++c) {
          REQUIRE(gradient[place(row) + c] == want[row * classes + c]);
          gradient[place(row) + c] = 7;
        }
      for (const float g : gradient) REQUIRE(g == 7.0f);
    });
}

TEST_CASE("logit batch: an ignored row is not looked at: the rest is as without it, and its gradient is 0",
          "[cpu][logit_batch]") {
  for (const std::size_t classes : {10u, 133u, 1025u})
    with_losses([&](const auto& loss) {
      rows_of_logits b = random_rows(40, classes), kept = {0, classes, {}, {}, {}};
      std::vector<float> want, got;
      for (std::size_t row = 0; row < b.rows; ++row) {
        const bool ignored = row % 3 == 1 || (row >= 16 && row < 32);
        float *const z = &b.student[row * classes], *const t = &b.teacher[row * classes];
        if (ignored) {
          b.labels[row] = -1;
          std::fill_n(z, classes, no_number);
          std::fill_n(t, classes, infinity);
        } else {
          ++kept.rows;
          kept.labels.push_back(b.labels[row]);
          kept.student.insert(kept.student.end(), z, z + classes);
          kept.teacher.insert(kept.teacher.end(), t, t + classes);
        }
      }
      auto batch = arrays(b, got);
      batch.ignore_index = -1;
      batch.divide_by = divisor::valid_rows;
      require_same(run(loss, batch, 2), run(loss, arrays(kept, want)));
      for (std::size_t row = 0, at = 0; row < b.rows; ++row)
        for (std::size_t c = 0; c < classes; ++c)
          REQUIRE(got[row * classes + c] == (b.labels[row] == -1 ? 0.0f : want[at++]));

      std::fill(got.begin(), got.end(), 0.5f);
      batch.add_to_gradient = true;
      REQUIRE(run(loss, batch).finite());
      kd_test::comparison added("added gradient");
      for (std::size_t row = 0, at = 0; row < b.rows; ++row)
        for (std::size_t c = 0; c < classes; ++c) {
          const bool ignored = b.labels[row] == -1;
          added.add(got[row * classes + c], 0.5f + (ignored ? 0.0f : want[at++]), ignored ? 0 : 1e-7);
        }
      REQUIRE(added);

      batch.divide_by = divisor::rows;  // all of them
      const auto by_all = run(loss, batch), by_kept = run(loss, arrays(kept, want));
      REQUIRE(kd_test::near(by_all.terms.total, by_kept.terms.total * double(kept.rows) / 40, {.relative = 1e-14}));
      REQUIRE(by_all.terms.accuracy == by_kept.terms.accuracy);
      REQUIRE(by_all.terms.rows == kept.rows);
    });
}

TEST_CASE("logit batch: where all rows are ignored terms and gradient are 0", "[cpu][logit_batch]") {
  const std::array<float, 3> weights = {};
  for (const std::size_t classes : {10u, 200u})
    for (const divisor by : {divisor::rows, divisor::valid_rows, divisor::weights, divisor::one}) {
      rows_of_logits b = random_rows(3, classes);
      std::vector<float> gradient;
      std::fill(b.labels.begin(), b.labels.end(), -100);
      auto batch = arrays(b, gradient);
      batch.divide_by = by;
      batch.row_weights = by == divisor::weights ? weights.data() : nullptr;
      const auto got = run(kd::distillation{}, batch);
      REQUIRE(got.finite());
      REQUIRE(got.terms.rows == 0);
      REQUIRE(got.terms.total == 0.0);
      REQUIRE(got.terms["kd"] == 0.0);
      REQUIRE(got.terms.accuracy == 0.0);
      for (const float g : gradient) REQUIRE(g == 0.0f);
    }
}

TEST_CASE("logit batch: weights and upstream gradients multiply, each divisor divides", "[cpu][logit_batch]") {
  for (const std::size_t classes : {10u, 133u})
    with_losses([&](const auto& loss) {
      const rows_of_logits b = random_rows(4, classes);
      const std::vector<float> weights = {0.5f, 0, 2, 1}, upstream = {3, 0.25f, -1, 8};
      const std::size_t columns = kd::value_names<kd::formula_of<std::remove_cvref_t<decltype(loss)>>>.size() + 1;
      std::vector<double> values(4 * columns);
      std::vector<float> plain, got;
      auto batch = arrays(b, plain);
      batch.divide_by = divisor::one;
      batch.row_values = values.data();
      REQUIRE(run(loss, batch).finite());
      const auto total_of = [&](std::size_t row) { return values[row * columns + columns - 1]; };
      const double weighted = 0.5 * total_of(0) + 2 * total_of(2) + total_of(3);

      batch = arrays(b, got);
      batch.row_weights = weights.data();
      for (const auto& [by, n] :
           {std::pair{divisor::rows, 4.0}, {divisor::valid_rows, 4.0}, {divisor::weights, 3.5}, {divisor::one, 1.0}}) {
        batch.divide_by = by;
        for (const int per_row : {-1, 0, 1}) {  // none, one, one of each row
          batch.upstream = per_row < 0 ? nullptr : upstream.data();
          batch.upstream_per_row = per_row == 1;
          REQUIRE(kd_test::near(run(loss, batch).terms.total, weighted / n, {.relative = 1e-14}));
          kd_test::comparison gradient("gradient");
          for (std::size_t i = 0; i < got.size(); ++i) {
            const std::size_t row = i / classes;
            const double factor = weights[row] * (per_row < 0 ? 1 : upstream[per_row * row]) / n;
            gradient.add(got[i], factor * plain[i], 3e-7 * std::abs(factor));
          }
          REQUIRE(gradient);
        }
      }
    });
}

TEST_CASE("logit batch: a row's values and gradient before the division depend on nothing but the row",
          "[cpu][logit_batch]") {
  for (const std::size_t classes : widths)
    with_losses([&](const auto& loss) {
      CAPTURE(classes, loss.name);
      const rows_of_logits b = random_rows(35, classes);
      const std::size_t columns = kd::value_names<kd::formula_of<std::remove_cvref_t<decltype(loss)>>>.size() + 1;
      std::vector<double> values(35 * columns, 7), alone(columns);
      std::vector<float> gradient;
      auto batch = arrays(b, gradient);
      batch.divide_by = divisor::one;
      batch.row_values = values.data();
      REQUIRE(run(loss, batch, 3).finite());
      for (const std::size_t row : {0u, 1u, 16u, 33u, 34u}) {
        // At another place in memory, too.
        std::vector<float> room(3 * classes + 3, 7.0f);
        float *const z = room.data() + 1, *const t = z + classes, *const d = t + classes + 1;
        std::copy_n(&b.student[row * classes], classes, z);
        std::copy_n(&b.teacher[row * classes], classes, t);
        const auto result = run(loss, logit_batch<float>{.rows = 1,
                                                         .classes = classes,
                                                         .student = {z},
                                                         .teacher = {t},
                                                         .labels = {&b.labels[row]},
                                                         .gradient = {d},
                                                         .row_values = alone.data()});
        REQUIRE(result.terms.total == values[row * columns + columns - 1]);
        for (std::size_t i = 0; i < columns; ++i) REQUIRE(alone[i] == values[row * columns + i]);
        for (std::size_t c = 0; c < classes; ++c) REQUIRE(d[c] == gradient[row * classes + c]);
      }
    });
}

TEST_CASE("logit batch: a teacher of fewer classes masks the others, one of more is cut", "[cpu][logit_batch]") {
  for (const std::size_t classes : {10u, 133u, 1025u, 2500u})
    for (const std::size_t known : {std::size_t{1}, classes - 1, classes / 2, classes + 7}) {
      // Divergences that are finite where the teacher is masked.
      const auto check = [&](const auto& loss) {
        CAPTURE(loss.name, classes, known);
        rows_of_logits b = random_rows(18, classes);
        std::vector<float> teacher(18 * known), want, got;
        for (std::size_t row = 0; row < 18; ++row)
          for (std::size_t c = 0; c < std::max(known, classes); ++c) {
            if (c >= known) b.teacher[row * classes + c] = -infinity;
            if (c < known) teacher[row * known + c] = c < classes ? b.teacher[row * classes + c] : 100.0f;
          }
        const auto expected = run(loss, arrays(b, want));
        auto batch = arrays(b, got);
        batch.teacher = {teacher.data()};
        batch.teacher_classes = known;
        require_same(run(loss, batch), expected);
        REQUIRE(got == want);
      };
      check(kd::distillation{.temperature = 3});
      check(kd::distillation_with<jensen_shannon>{});
      check(kd::distillation_with<dist>{});
    }
}

TEST_CASE("logit batch: without labels there is no accuracy, and nothing else is missed", "[cpu][logit_batch]") {
  for (const std::size_t classes : {10u, 133u}) {
    const rows_of_logits b = random_rows(18, classes);
    std::vector<float> want, got;
    const logit_loss loss{2.0f, 2.0f, true, weighted{1.0f, reverse_kl{}}};
    const kd::cpu::parallel par{1};
    std::vector<std::byte> scratch(kd::cpu::logit_loss_scratch(par, 18, classes));
    auto batch = arrays(b, want);
    const auto expected = kd::cpu::detail::fused_loss<kd::cpu::native_width>("mine", par, batch, loss, scratch);
    batch = arrays(b, got);
    batch.labels = {};
    const auto result = kd::cpu::detail::fused_loss<kd::cpu::native_width>("mine", par, batch, loss, scratch);
    REQUIRE(result.terms.total == expected.terms.total);
    REQUIRE(result.terms.teacher_agreement == expected.terms.teacher_agreement);
    REQUIRE(result.terms.accuracy == 0.0);
    REQUIRE(got == want);
  }
}

TEST_CASE("logit batch: a label's term of weight 0 is infinite, and no fault, where the label is masked",
          "[cpu][logit_batch]") {
  for (const std::size_t classes : {10u, 133u, 2500u}) {
    rows_of_logits b = random_rows(3, classes);
    const auto label = static_cast<std::size_t>(b.labels[1]);
    b.student[classes + label] = b.teacher[classes + label] = -infinity;
    std::vector<float> gradient;
    const auto faulty = run(kd::distillation{}, arrays(b, gradient));
    REQUIRE(faulty.fault.kind == kd::loss_fault_kind::label_masked);
    REQUIRE(faulty.fault.row == 1);
    const auto got = run(kd::distillation{.ce_weight = 0}, arrays(b, gradient));
    REQUIRE(got.finite());
    REQUIRE(got.terms["cross_entropy"] == std::numeric_limits<double>::infinity());
    REQUIRE(got.terms.total == 0.25 * got.terms["kd"]);
    for (const float g : gradient) REQUIRE(std::isfinite(g));
    b.student[classes] = no_number;  // but this is one
    REQUIRE(run(kd::distillation{.ce_weight = 0}, arrays(b, gradient)).fault.kind == kd::loss_fault_kind::student_nan);
  }
}

TEST_CASE("logit batch: results are bit-equal for any number of threads", "[cpu][logit_batch]") {
  for (const std::size_t classes : {10u, 1100u})
    with_losses([&](const auto& loss) {
      rows_of_logits b = random_rows(classes == 10 ? 1700 : 37, classes);
      for (std::size_t row = 0; row < b.rows; row += 5) b.labels[row] = -100;
      const auto student = in_format<bfloat16>(b.student), teacher = in_format<bfloat16>(b.teacher);
      std::vector<bfloat16> one(student.size()), many = one;
      logit_batch<bfloat16> batch{.rows = b.rows,
                                  .classes = classes,
                                  .student = {student.data()},
                                  .teacher = {teacher.data()},
                                  .labels = {b.labels.data()},
                                  .gradient = {one.data()}};
      const auto want = run(loss, batch);
      batch.gradient = {many.data()};
      for (const int threads : {2, 3, 7}) {
        require_same(run(loss, batch, threads), want);
        for (std::size_t i = 0; i < one.size(); ++i) REQUIRE(many[i].bits == one[i].bits);
      }
    });
}

TEST_CASE("logit batch: bad arguments are named before anything is written", "[cpu][logit_batch]") {
  rows_of_logits b = random_rows(4, 10);
  std::vector<float> gradient;
  const auto refused = [&](const auto& change) {
    auto batch = arrays(b, gradient);
    change(batch);
    const std::string message = kd_test::message_of<kd::argument_error>([&] { run(kd::distillation{}, batch); });
    for (const float g : gradient) REQUIRE(g == 7.0f);
    return message;
  };
  using kd_test::holds;
  const std::vector<std::int32_t> outside = {0, -100, 10, 3};
  REQUIRE(holds(refused([&](auto& c) { c.labels = {outside.data()}; }), "distillation: label 2 must be in [0, 10)",
                "received 10"));
  const std::vector<float> weights = {1, 1, -1, 1};
  REQUIRE(holds(refused([&](auto& c) { c.row_weights = weights.data(); }),
                "distillation: row weight 2 must be finite and not negative", "received -1"));
  REQUIRE(holds(refused([](auto& c) { c.student.row_stride = 9; }), "row_stride of the student", "received 9"));
  REQUIRE(holds(refused([](auto& c) {
                  c.group_rows = 2;
                  c.teacher.group_stride = 19;
                }),
                "group_stride of the teacher", "at least 20", "received 19"));
  REQUIRE(holds(refused([&](auto& c) { c.gradient = {const_cast<float*>(b.teacher.data())}; }),
                "the gradient must not share memory"));
  REQUIRE(holds(refused([&](auto& c) {
                  c.gradient = {const_cast<float*>(b.student.data())};
                  c.add_to_gradient = true;
                }),
                "a gradient that is added to must not be the student's logits"));
}
