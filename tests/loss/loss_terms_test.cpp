#include "kd/loss/loss_terms.hpp"

#include <string>
#include <string_view>

#include "kd/loss/loss_meter.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/message.hpp"

TEST_CASE("loss_terms: steps of different sizes add up to the mean over all rows", "[loss][loss_terms]") {
  constexpr std::string_view names[] = {"kd", "cross_entropy"};
  kd::loss_result first, none, second, bad;
  first.terms = {
      .total = 1, .accuracy = 0.5, .teacher_agreement = 1, .rows = 3, .list = {{{"", 3}, {"", 2}}}, .size = 2};
  second.terms = {
      .total = 5, .accuracy = 1, .teacher_agreement = 0, .rows = 1, .list = {{{"", 7}, {"", 6}}}, .size = 2};
  bad.fault = {kd::loss_fault_kind::student_nan, 3, 7};
  kd::loss_meter epoch;
  CHECK(epoch.means(names).total == 0);
  for (const kd::loss_result& step : {first, none, second}) epoch.add(step);
  const kd::loss_terms mean = epoch.means(names);
  CHECK(mean.rows == 4);
  CHECK(kd_test::near(mean.total, 2, {.absolute = 1e-15}));
  CHECK(kd_test::near(mean["kd"], 4, {.absolute = 1e-15}));
  CHECK(kd_test::near(mean["cross_entropy"], 3, {.absolute = 1e-15}));
  CHECK(kd_test::near(mean.accuracy, 0.625, {.absolute = 1e-15}));
  CHECK(kd_test::near(mean.teacher_agreement, 0.75, {.absolute = 1e-15}));

  for (const kd::loss_result& step : {bad, second}) epoch.add(step);  // after a fault nothing is added
  CHECK(epoch.fault().row == 3);
  CHECK(epoch.fault_step == 3);
  CHECK(epoch.rows == 4);
}

TEST_CASE("loss_terms: a term is found by its name, an unknown name is an error that lists them",
          "[loss][loss_terms]") {
  const kd::loss_terms terms = {.list = {{{"kd", 3}, {"cross_entropy", 2}}}, .size = 2};
  CHECK(terms["cross_entropy"] == 2);
  const std::string message = kd_test::message_of<kd::argument_error>([&] { (void)terms["ce"]; });
  CHECK(message.find("kd, cross_entropy") != std::string::npos);
}

TEST_CASE("loss_terms: a fault is thrown with loss, tensor, row and class, and no word of a training",
          "[loss][loss_terms]") {
  kd::loss_result good;
  good.terms.total = 3;
  REQUIRE(kd::require_finite(good, "distillation").total == 3);

  kd::loss_result bad;
  bad.fault = {kd::loss_fault_kind::student_nan, 3, 7};
  const std::string message =
      kd_test::message_of<kd::non_finite_error>([&] { kd::require_finite(bad, "distillation"); });
  REQUIRE(message.find("distillation: student logits have a NaN at row 3, class 7; ") == 0);
  REQUIRE(message.find("training") == std::string::npos);
}

TEST_CASE("loss_terms: every kind of fault has its own text, an unknown kind is an error", "[loss][loss_terms]") {
  std::string all;
  for (int kind = 0; kind <= static_cast<int>(kd::loss_fault_kind::row_weight); ++kind) {
    const std::string text = kd::text_of(kd::loss_fault{static_cast<kd::loss_fault_kind>(kind), 31, 4});
    REQUIRE(all.find(text) == std::string::npos);
    if (kind > 0) REQUIRE(text.find("row 31") != std::string::npos);
    all += text + "\n";
  }
  REQUIRE_THROWS_AS(kd::text_of(kd::loss_fault{static_cast<kd::loss_fault_kind>(99), 0, 0}), kd::argument_error);
}
