#include "kd/train/evaluate.hpp"

#include <limits>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/message.hpp"
#include "support/tiny.hpp"

TEST_CASE("evaluate: top-1, top-5 and confusion by hand", "[train][evaluate]") {
  kd::tensor<float, 2> logits({3, 7});
  for (std::size_t c = 0; c < 7; ++c) {
    logits(0, c) = static_cast<float>(c);   // predicts 6
    logits(1, c) = -static_cast<float>(c);  // predicts 0
    logits(2, c) = 1;                       // all equal: the first counts
  }
  const std::vector<std::int32_t> labels{6, 5, 0};
  const auto e = kd::train::evaluate_logits(logits, labels);
  CHECK(e.samples == 3);
  CHECK(e.top1 == 2.0 / 3);
  CHECK(e.top5 == 2.0 / 3);  // label 5 of row 1 is sixth
  CHECK(e.confusion(6, 6) == 1);
  CHECK(e.confusion(5, 0) == 1);
  CHECK(e.confusion(0, 0) == 1);
  CHECK(kd::train::evaluate_logits(kd::tensor<float, 2>({0, 3}), {}).samples == 0);
}

TEST_CASE("evaluate: a NaN is right nowhere", "[train][evaluate]") {
  kd::tensor<float, 2> logits({2, 7});
  logits(0, 0) = std::numeric_limits<float>::quiet_NaN();
  for (std::size_t c = 0; c < 7; ++c) logits(1, c) = std::numeric_limits<float>::quiet_NaN();
  const auto e = kd::train::evaluate_logits(logits, std::vector<std::int32_t>{0, 3});
  CHECK(e.top1 == 0);
  CHECK(e.top5 == 0);
}

TEST_CASE("evaluate: wrong labels and counts are refused", "[train][evaluate][errors]") {
  const kd::tensor<float, 2> logits({2, 3});
  const std::vector<std::int32_t> one{0}, outside{0, 3};
  CHECK(kd_test::holds(kd_test::message_of<kd::argument_error>([&] { kd::train::evaluate_logits(logits, one); }),
                       "2 rows"));
  CHECK(kd_test::holds(kd_test::message_of<kd::argument_error>([&] { kd::train::evaluate_logits(logits, outside); }),
                       "label 1", "[0, 3)", "received 3"));
}

TEST_CASE("agreement: rows with the same first choice", "[train][evaluate]") {
  kd::tensor<float, 2> a({4, 3}), b({4, 3});
  a(0, 1) = b(0, 1) = 1;
  a(1, 2) = 1;  // b: all equal, the first counts
  a(2, 0) = b(2, 0) = 5;
  a(3, 1) = b(3, 2) = 1;
  CHECK(kd::train::agreement(a, b) == 0.5);
  CHECK_THROWS_AS(kd::train::agreement(a, kd::tensor<float, 2>({4, 2})), kd::argument_error);
}

TEST_CASE("predict: rows do not depend on the batch size, and a partial image is refused", "[train][evaluate]") {
  kd::cpu::device cpu(2);
  kd::network<kd_test::TinyNet, kd::cpu::device> net(cpu, 1);
  const auto set = kd_test::quadrants(50, 4);
  const auto whole = kd::train::predict(net, set.train.images);
  const auto parts = kd::train::predict(net, set.train.images, 7);
  REQUIRE(whole.extents() == parts.extents());
  CHECK(kd_test::near(parts.elements(), whole.elements(), {.absolute = 1e-5}));
  const std::vector<std::uint8_t> odd(100);
  CHECK_THROWS_AS(kd::train::predict(net, odd), kd::argument_error);
  CHECK_THROWS_AS(kd::train::predict(net, set.train.images, 0), kd::argument_error);
}
