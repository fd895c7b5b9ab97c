#include "kd/loss/soft_capped.hpp"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kd/forward_backward.hpp"
#include "kd/loss/cross_entropy.hpp"
#include "kd/loss/distillation.hpp"
#include "kd/loss/each_option.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/loss_edge_rows.hpp"
#include "support/message.hpp"

using namespace kd_test;

namespace {

constexpr std::size_t rows = 5;

/// The terms on logits that spread over 60, and the gradient.
template <class Loss>
kd::loss_terms run(const Loss& loss, std::size_t classes, std::vector<float>& gradient) {
  const auto z = spread_logits(rows * classes, 60, 1), t = spread_logits(rows * classes, 60, 2);
  const std::vector<std::int32_t> labels(rows, 3);
  gradient.assign(rows * classes, NAN);
  return kd::forward_backward(loss, kd::logit_batch<float>{.rows = rows,
                                                           .classes = classes,
                                                           .student = {z.data()},
                                                           .teacher = {t.data()},
                                                           .labels = {labels.data()},
                                                           .gradient = {gradient.data()}});
}

}  // namespace

TEST_CASE("soft_capped: without scale and cap it is the loss, bit by bit", "[loss][soft_capped]") {
  for (const std::size_t classes : {10u, 3000u}) {
    std::vector<float> plain, capped;
    const kd::distillation loss{.temperature = 3};
    CHECK(run(loss, classes, plain).total == run(kd::soft_capped{loss}, classes, capped).total);
    CHECK(plain == capped);
  }
}

TEST_CASE("soft_capped: a scale is a temperature that the labels see too", "[loss][soft_capped]") {
  for (const std::size_t classes : {10u, 3000u}) {
    std::vector<float> scaled, softened;
    const double got = run(kd::soft_capped{kd::distillation{.temperature = 1, .kd_weight = 1, .ce_weight = 0},
                                           kd::soft_cap{.scale = 0.5f}, kd::soft_cap{.scale = 0.25f}},
                           classes, scaled)
                           .total;
    const double want = run(kd::distillation{.temperature = 2,
                                             .kd_weight = 1,
                                             .ce_weight = 0,
                                             .teacher_temperature = 4,
                                             .times_temperature_squared = false},
                            classes, softened)
                            .total;
    CHECK(near(got, want, {.relative = 1e-5, .scale_at_least = 1}));
    CHECK(near(scaled, softened, {.absolute = 1e-6}, "d_student"));
  }
}

TEST_CASE("soft_capped: options have names of their own, and limits", "[loss][soft_capped][errors]") {
  kd::soft_capped loss{kd::distillation{}, kd::soft_cap{.cap = 30}};
  std::vector<std::string> names;
  kd::each_option(loss, [&](const std::string& name, const auto&, const auto&) { names.push_back(name); });
  CHECK(names == std::vector<std::string>{"temperature", "kd_weight", "ce_weight", "teacher_temperature",
                                          "times_temperature_squared", "student_scale", "student_cap", "teacher_scale",
                                          "teacher_cap"});
  const auto message = [&] { return message_of<kd::argument_error>([&] { loss.validate(); }); };
  loss.validate();
  loss.student.cap = -1;
  CHECK(holds(message(), "distillation: cap must be", "30 is Gemma 2's"));
  loss.student = {.scale = 0};
  CHECK(holds(message(), "scale must be"));
  loss.student = {.cap = std::numeric_limits<float>::quiet_NaN()};
  CHECK(holds(message(), "cap must be"));
  loss.student = {};
  loss.teacher.cap = std::numeric_limits<float>::infinity();
  CHECK(holds(message(), "cap must be"));
  loss.teacher = {};
  loss.loss.temperature = 0;
  CHECK(holds(message(), "temperature must be"));
}

TEST_CASE("soft_capped: what is not finite is no class and no value, whatever the cap", "[loss][soft_capped][errors]") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const kd::soft_capped loss{kd::cross_entropy{}, kd::soft_cap{.cap = 30}};
  const std::vector<std::int32_t> label{0};
  const auto run_row = [&](const std::vector<float>& z, std::vector<float>& d) {
    return kd::forward_backward(
        loss,
        kd::logit_batch<float>{
            .rows = 1, .classes = z.size(), .student = {z.data()}, .labels = {label.data()}, .gradient = {d.data()}});
  };
  for (const std::size_t classes : {4u, 100u}) {
    std::vector<float> z(classes, -infinity), d(classes, NAN);
    z[0] = 5, z[1] = 5;
    CHECK(near(run_row(z, d).total, std::log(2.0), {.relative = 1e-6}));
    CHECK(d[2] == 0);
    z[2] = infinity;
    CHECK(holds(message_of<kd::non_finite_error>([&] { run_row(z, d); }), "plus infinity at row 0, class 2"));
    z[2] = NAN;
    CHECK(holds(message_of<kd::non_finite_error>([&] { run_row(z, d); }), "NaN at row 0, class 2"));
  }
}
