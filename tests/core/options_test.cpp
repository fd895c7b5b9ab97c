#include "kd/core/options.hpp"

#include <initializer_list>
#include <limits>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/message.hpp"

using kd_test::message_of;
using kd_test::nothing_thrown;

namespace {

namespace formula = kd::formula;
using formula::option;

/// An option of each type, and limits of each kind.
struct mixture {
  float temperature = 2;
  float at_most = 0;
  double share = 0.5;
  double decay = 0.9;
  double anything = 0;
  double weight = 1;
  bool flag = false;

  static constexpr void options(auto&& each) {
    each(option{"temperature", &mixture::temperature, 1e-4, 1e4, "2 is usual"});
    each(option{"at_most", &mixture::at_most, -formula::unbounded, 3, "0 is usual"});
    each(option{"share", &mixture::share, 0, 1, "0.5 is usual"});
    each(option{"decay", &mixture::decay, 0, formula::below{1}, "0.9 is usual"});
    each(option{"anything", &mixture::anything, -formula::unbounded, formula::unbounded, "0 is usual"});
    each(option{"weight", &mixture::weight, 0, formula::unbounded, "1 is usual"});
    each(option{"flag", &mixture::flag, "off is usual"});
  }
  constexpr const char* conflict() const { return flag && share == 1 ? "flag needs share below 1" : nullptr; }
};

std::string refusal_of(const mixture& m) {
  return message_of<kd::argument_error>([&] { kd::validate_options("mine", m); });
}

}  // namespace

TEST_CASE("options: both limits are allowed, below alone is not", "[core][options]") {
  // The float nearest to 1e-4 is below the double.
  for (const float temperature : {1e-4f, 1e4f}) CHECK(refusal_of({.temperature = temperature}) == nothing_thrown);
  for (const double share : {0.0, 1.0}) CHECK(refusal_of({.share = share}) == nothing_thrown);
  CHECK(refusal_of({.at_most = 3}) == nothing_thrown);
  CHECK(refusal_of({.decay = 1 - 1e-15}) == nothing_thrown);
  CHECK(refusal_of({.decay = 1}) == "mine: decay must be a number in [0,1), received 1; 0.9 is usual");
  CHECK(refusal_of({.anything = -std::numeric_limits<double>::max()}) == nothing_thrown);
  CHECK(refusal_of({.flag = true}) == nothing_thrown);
}

TEST_CASE("options: what is out of its limits is named with them, in the numbers of its type", "[core][options]") {
  CHECK(refusal_of({.temperature = 0.00005f}) ==
        "mine: temperature must be a number in [1e-04,10000], received 5e-05; 2 is usual");
  CHECK(refusal_of({.at_most = 3.5f}) == "mine: at_most must be finite and at most 3, received 3.5; 0 is usual");
  CHECK(refusal_of({.share = -0.1}) == "mine: share must be a number in [0,1], received -0.1; 0.5 is usual");
  CHECK(refusal_of({.weight = -1}) == "mine: weight must be finite and not negative, received -1; 1 is usual");
  for (const double bad : {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(),
                           std::numeric_limits<double>::quiet_NaN()}) {
    CHECK(refusal_of({.anything = bad}) == kd::text("mine: anything must be finite, received ", bad, "; 0 is usual"));
    CHECK(refusal_of({.share = bad}) != nothing_thrown);
    CHECK(refusal_of({.at_most = static_cast<float>(bad)}) != nothing_thrown);
  }
}

TEST_CASE("options: a conflict is told with all that was received", "[core][options]") {
  CHECK(refusal_of({.share = 1, .flag = true}) ==
        "mine: flag needs share below 1; received temperature 2, at_most 0, share 1, decay 0.9, anything 0, "
        "weight 1, flag true");
}

TEST_CASE("options: the first mistake is named before a conflict", "[core][options]") {
  CHECK(refusal_of({.share = 1, .decay = 2, .flag = true}) ==
        "mine: decay must be a number in [0,1), received 2; 0.9 is usual");
}

TEST_CASE("options: a derived type has declared none", "[core][options]") {
  struct derived : mixture {};
  CHECK(kd::has_options<mixture>);
  CHECK_FALSE(kd::has_options<derived>);
  CHECK_FALSE(kd::has_options<int>);
  CHECK_NOTHROW(kd::validate_options("int", 1));
  CHECK(kd::every_member_is_an_option<mixture>());
}
