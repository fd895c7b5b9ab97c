#include "kd/loss/distillation.hpp"

#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include "kd/core/labels.hpp"
#include "support/catch.hpp"
#include "support/message.hpp"

using kd_test::holds;
using kd_test::message_of;

TEST_CASE("distillation: the defaults are the report's", "[loss][distillation]") {
  const kd::distillation options;
  REQUIRE(options.temperature == 2.0f);
  REQUIRE(options.kd_weight == 0.25f);
  REQUIRE(options.ce_weight == 0.75f);
  REQUIRE_NOTHROW(options.validate());
}

TEST_CASE("distillation: bad temperatures and weights are named with value and remedy", "[loss][distillation]") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const float T : {0.0f, -2.0f, nan, inf, 1e-5f, 1e5f}) {
    const std::string message = message_of<kd::argument_error>([&] { kd::distillation{.temperature = T}.validate(); });
    REQUIRE(holds(message, "distillation: temperature must be"));
    REQUIRE(holds(message, kd::text("received ", T, "; ")));
  }
  for (const float weight : {-0.25f, nan, inf}) {
    REQUIRE(holds(message_of<kd::argument_error>([&] { kd::distillation{.kd_weight = weight}.validate(); }),
                  kd::text("kd_weight must be finite and not negative, received ", weight)));
    REQUIRE(holds(message_of<kd::argument_error>([&] { kd::distillation{.ce_weight = weight}.validate(); }),
                  kd::text("ce_weight must be finite and not negative, received ", weight)));
  }
  for (const float T : {0.05f, 1.0f, 1.01f, 100.0f})
    REQUIRE_NOTHROW(kd::distillation{.temperature = T, .kd_weight = 0, .ce_weight = 0}.validate());
}

TEST_CASE("cross_entropy: a label out of range is named with its row", "[loss][cross_entropy]") {
  const std::int32_t labels[] = {0, 9, 10, 3}, negative[] = {-1};
  REQUIRE_NOTHROW(kd::require_labels("cross_entropy", std::span(labels).first(2), 10));
  const std::string message = message_of<kd::argument_error>([&] { kd::require_labels("cross_entropy", labels, 10); });
  REQUIRE(holds(message, "cross_entropy: label 2 must be in [0, 10), received 10; "));
  REQUIRE(
      holds(message_of<kd::argument_error>([&] { kd::require_labels("cross_entropy", negative, 10); }), "received -1"));
}
