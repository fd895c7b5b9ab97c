#include "kd/loss/loss_terms.hpp"

#include <string>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/message.hpp"

TEST_CASE("loss_terms: batches of different sizes add up to the mean over all rows", "[loss][loss_terms]") {
  kd::loss_terms epoch;
  epoch += {.total = 1,
            .cross_entropy = 2,
            .kd = 3,
            .soft_cross_entropy = 4,
            .accuracy = 0.5,
            .teacher_agreement = 1,
            .rows = 3};
  epoch += {};  // no rows
  epoch += {.total = 5,
            .cross_entropy = 6,
            .kd = 7,
            .soft_cross_entropy = 8,
            .accuracy = 1,
            .teacher_agreement = 0,
            .rows = 1};
  REQUIRE(epoch.rows == 4);
  REQUIRE(kd_test::close(epoch.total, 2, 1e-15));
  REQUIRE(kd_test::close(epoch.cross_entropy, 3, 1e-15));
  REQUIRE(kd_test::close(epoch.kd, 4, 1e-15));
  REQUIRE(kd_test::close(epoch.soft_cross_entropy, 5, 1e-15));
  REQUIRE(kd_test::close(epoch.accuracy, 0.625, 1e-15));
  REQUIRE(kd_test::close(epoch.teacher_agreement, 0.75, 1e-15));
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
  for (int kind = 0; kind <= static_cast<int>(kd::loss_fault_kind::label_out_of_range); ++kind) {
    const std::string text = kd::text_of(kd::loss_fault{static_cast<kd::loss_fault_kind>(kind), 31, 4});
    REQUIRE(all.find(text) == std::string::npos);
    if (kind > 0) REQUIRE(text.find("row 31") != std::string::npos);
    all += text + "\n";
  }
  REQUIRE_THROWS_AS(kd::text_of(kd::loss_fault{static_cast<kd::loss_fault_kind>(99), 0, 0}), kd::argument_error);
}
