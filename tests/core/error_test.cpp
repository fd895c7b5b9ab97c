#include "kd/core/error.hpp"

#include "support/catch.hpp"

TEST_CASE("reject_argument: says function, rule, value and remedy", "[core][error]") {
  try {
    kd::reject_argument("kd::thing", "x must be above 0", -1.5, "pass 1");
    FAIL("nothing was thrown");
  } catch (const kd::argument_error& e) {
    CHECK(std::string(e.what()) == "kd::thing: x must be above 0, received -1.5; pass 1");
  }
}

TEST_CASE("text: numbers in their shortest form, truth values as words", "[core][error]") {
  CHECK(kd::text("a", 0.1f, ' ', 12345678901234u, " ", true) == "a0.1 12345678901234 true");
}
