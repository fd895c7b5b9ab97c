#include "support/compare.hpp"

#include <array>
#include <cmath>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "support/catch.hpp"

using kd_test::allowed_error;
using kd_test::close;
using kd_test::comparison;
using kd_test::near;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();

std::string text_of(const comparison& c) {
  std::ostringstream out;
  out << c;
  return out.str();
}

const std::vector<double> one_to_five = {1, 2, 3, 4, 5};

}  // namespace

TEST_CASE("compare: equal numbers pass with any tolerance, 0 included", "[support][compare]") {
  for (const double tolerance : {0.0, 1e-300, 1.0, 1e300}) {
    CHECK(near(one_to_five, one_to_five, {.absolute = tolerance}));
    CHECK(near(2.5f, 2.5, {.absolute = tolerance}));
  }
  CHECK(near(0.0, -0.0, {}));
  CHECK(near(std::vector<float>{0.5f, 0.25f}, std::array<double, 2>{0.5, 0.25}, {}));
  const float numbers[] = {1, 2};
  CHECK(near(numbers, std::vector<int>{1, 2}, {}));
}

TEST_CASE("compare: a NaN fails first, in the middle and last, in got, in want and in both", "[support][compare]") {
  for (const std::size_t at : {0u, 2u, 4u}) {
    std::vector<double> poisoned = one_to_five;
    poisoned[at] = not_a_number;
    CAPTURE(at);
    for (const allowed_error allowed :
         {allowed_error{}, allowed_error{.absolute = 1e300}, allowed_error{.relative = 1e300},
          allowed_error{.of_largest = 1e300}, allowed_error{.relative = 1, .scale_at_least = 1e300},
          allowed_error{.absolute = inf}}) {
      CHECK_FALSE(near(poisoned, one_to_five, allowed));
      CHECK_FALSE(near(one_to_five, poisoned, allowed));
      CHECK_FALSE(near(poisoned, poisoned, allowed));
    }
    const std::string index = "[" + std::to_string(at) + "]: ";
    CHECK(text_of(near(poisoned, one_to_five, {.absolute = 1})) ==
          index + "got nan, want " + std::to_string(at + 1) + " (error nan, tolerance 1); 1 of 5 wrong");
    CHECK(text_of(near(one_to_five, poisoned, {.absolute = 1})) ==
          index + "got " + std::to_string(at + 1) + ", want nan (error nan, tolerance 1); 1 of 5 wrong");
    CHECK(text_of(near(poisoned, poisoned, {.absolute = 1})) ==
          index + "got nan, want nan (error nan, tolerance 1); 1 of 5 wrong");
  }
  CHECK_FALSE(near(not_a_number, 1, {.absolute = 1}));
  CHECK_FALSE(near(1, not_a_number, {.absolute = 1}));
  CHECK_FALSE(near(not_a_number, not_a_number, {.absolute = 1}));
  CHECK_FALSE(close(not_a_number, 1, 1));
  CHECK_FALSE(close(1, not_a_number, 1));
  CHECK_FALSE(near(std::vector<float>(3, std::nanf("")), std::vector<float>(3, 0.0f), {.absolute = 1}));
}

TEST_CASE("compare: the first NaN stays, before and after any finite error and any other NaN", "[support][compare]") {
  for (const std::vector<double>& got : std::vector<std::vector<double>>{{1, 1e300, not_a_number, 4, 5},
                                                                         {1, 2, not_a_number, 1e300, not_a_number},
                                                                         {1, 2, not_a_number, inf, 5},
                                                                         {1, 2, not_a_number, -1e300, 1e300},
                                                                         {0, 0, not_a_number, 0, 0}}) {
    const comparison c = near(got, one_to_five, {.absolute = 1e-6});
    CHECK_FALSE(c);
    CHECK(text_of(c).rfind("[2]: got nan, want 3 (error nan, tolerance 1e-06)", 0) == 0);
    CHECK(std::isnan(c.worst_error()));
  }
  // One that is followed by ten thousand right numbers.
  comparison many("many");
  for (std::size_t i = 0; i < 10000; ++i) many.add(i == 17 ? not_a_number : 0.25, 0.25, 1e-6);
  CHECK_FALSE(many);
  CHECK(text_of(many) == "many[17]: got nan, want 0.25 (error nan, tolerance 1e-06); 1 of 10000 wrong");
}

TEST_CASE("compare: an infinity equals itself alone", "[support][compare]") {
  const std::vector<double> want = {1, inf, -inf, 2};
  CHECK(near(want, want, {}));
  CHECK(near(want, want, {.absolute = 1, .relative = 1, .of_largest = 1, .scale_at_least = 1}));
  CHECK(near(std::vector<double>{1.5, inf, -inf, 2}, want, {.of_largest = 0.25}));  // of 2, not of infinity
  CHECK_FALSE(near(std::vector<double>{1.6, inf, -inf, 2}, want, {.of_largest = 0.25}));
  for (const std::vector<double>& got : std::vector<std::vector<double>>{
           {1, -inf, -inf, 2}, {1, inf, inf, 2}, {1, 1e308, -inf, 2}, {1, not_a_number, -inf, 2}, {inf, inf, -inf, 2}})
    for (const allowed_error allowed :
         {allowed_error{}, allowed_error{.absolute = 1e300}, allowed_error{.relative = 1},
          allowed_error{.relative = inf}, allowed_error{.of_largest = 1}, allowed_error{.absolute = inf}})
      CHECK_FALSE(near(got, want, allowed));
  CHECK(text_of(near(std::vector<double>{1, 1e300, -inf, inf}, want, {.absolute = 1e300})) ==
        "[1]: got 1e+300, want inf (error inf, tolerance 1e+300); 2 of 4 wrong");
  CHECK(close(inf, inf, 1e-6));
  CHECK_FALSE(close(inf, -inf, 1));
  CHECK_FALSE(close(1e308, inf, 1));
  // Finite numbers whose difference is not.
  CHECK_FALSE(near(1e308, -1e308, {.absolute = 1e308}));
}

TEST_CASE("compare: a tolerance that is no bound passes nothing", "[support][compare]") {
  for (const double bad : {not_a_number, inf, -inf, -1.0}) {
    comparison c("value");
    c.add(1, 1, 1);
    c.add(1, 1, bad);
    c.add(1, 9, 1);
    CAPTURE(bad);
    CHECK_FALSE(c);
    CHECK(text_of(c).rfind("value[1]: got 1, want 1 (error 0, ", 0) == 0);
    CHECK_FALSE(near(one_to_five, one_to_five, {.absolute = bad}));
  }
}

TEST_CASE("compare: nothing and another number of elements are wrong, the former unless asked for",
          "[support][compare]") {
  const std::vector<float> none;
  CHECK_FALSE(near(none, none, {}));
  CHECK(text_of(near(none, none, {}, "rows")) == "rows: nothing was compared");
  CHECK_FALSE(comparison("nothing"));
  CHECK(std::isnan(comparison().worst_error()));
  CHECK(near(none, none, {}).or_nothing());
  CHECK(comparison("nothing").or_nothing());
  CHECK_FALSE(near(std::vector<double>{not_a_number}, std::vector<double>{0}, {}).or_nothing());
  CHECK_FALSE(near(none, one_to_five, {}).or_nothing());

  const std::vector<double> four = {1, 2, 3, 4};
  CHECK_FALSE(near(four, one_to_five, {.absolute = 1e300}));
  CHECK_FALSE(near(one_to_five, four, {.absolute = 1e300}));
  CHECK_FALSE(near(none, one_to_five, {.absolute = 1e300}));
  CHECK_FALSE(near(one_to_five, none, {.absolute = 1e300}));
  CHECK(text_of(near(four, one_to_five, {}, "weight")) == "weight: got 4 elements, want 5");
  // It is remembered beside arrays that are right.
  comparison both("both");
  both.add_all(one_to_five, one_to_five, {});
  both.add_all(four, one_to_five, {});
  both.add_all(four, four, {});
  CHECK_FALSE(both);
  comparison counted("counted");
  counted.add(1, 1, 0);
  counted.add_size(3, 3);
  CHECK(counted);
  counted.add_size(3, 4);
  CHECK_FALSE(counted);
  CHECK(text_of(counted) == "counted: got 3 elements, want 4");
}

TEST_CASE("compare: each part of a tolerance holds up to its bound and no further", "[support][compare]") {
  const std::vector<double> want = {-8, 0.5, 0};
  const auto off_by = [&](std::size_t i, double error) {
    std::vector<double> got = want;
    got[i] += error;
    return got;
  };
  for (const double sign : {-1.0, 1.0}) {
    for (const std::size_t i : {0u, 1u, 2u}) {
      CHECK(near(off_by(i, sign * 0.25), want, {.absolute = 0.25}));
      CHECK_FALSE(near(off_by(i, sign * 0.2501), want, {.absolute = 0.25}));
      CHECK(near(off_by(i, sign * 2), want, {.of_largest = 0.25}));
      CHECK_FALSE(near(off_by(i, sign * 2.001), want, {.of_largest = 0.25}));
      CHECK(near(off_by(i, sign * 4), want, {.of_largest = 0.25, .scale_at_least = 16}));
      CHECK_FALSE(near(off_by(i, sign * 4.001), want, {.of_largest = 0.25, .scale_at_least = 16}));
    }
    CHECK(near(off_by(0, sign * 2), want, {.relative = 0.25}));
    CHECK_FALSE(near(off_by(0, sign * 2.001), want, {.relative = 0.25}));
    CHECK(near(off_by(1, sign * 0.125), want, {.relative = 0.25}));
    CHECK_FALSE(near(off_by(1, sign * 0.126), want, {.relative = 0.25}));
    CHECK_FALSE(near(off_by(2, sign * 1e-300), want, {.relative = 0.25}));
    CHECK(near(off_by(2, sign * 0.25), want, {.relative = 0.25, .scale_at_least = 1}));
    CHECK_FALSE(near(off_by(2, sign * 0.2501), want, {.relative = 0.25, .scale_at_least = 1}));
    CHECK(near(off_by(0, sign * 3), want, {.absolute = 1, .relative = 0.25}));
    CHECK_FALSE(near(off_by(0, sign * 3.001), want, {.absolute = 1, .relative = 0.25}));
    CHECK(close(8 + sign * 2, 8, 0.25));
    CHECK_FALSE(close(8 + sign * 2.001, 8, 0.25));
    CHECK(close(sign * 0.25, 0, 0.25));
    CHECK_FALSE(close(sign * 0.2501, 0, 0.25));
  }
}

TEST_CASE("compare: numbers that must differ do so by a finite error, not by a NaN or another size",
          "[support][compare]") {
  const allowed_error small{.absolute = 0.5};
  CHECK(near(std::vector<double>{1, 2, 3, 4, 7}, one_to_five, small).differs());
  CHECK(near(2, 1, small).differs());
  CHECK_FALSE(near(one_to_five, one_to_five, small).differs());
  CHECK_FALSE(near(std::vector<double>{1, 2, 3, 4, 5.5}, one_to_five, small).differs());
  CHECK_FALSE(near(std::vector<double>{1, 2, not_a_number, 4, 7}, one_to_five, small).differs());
  CHECK_FALSE(near(std::vector<double>{1, 2, inf, 4, 7}, one_to_five, small).differs());
  CHECK_FALSE(near(std::vector<double>{9, 9}, one_to_five, small).differs());
  CHECK_FALSE(comparison().differs());
  CHECK_FALSE(comparison().or_nothing().differs());
  CHECK(text_of(near(1.25, 1, small).differs()) == "got 1.25, want 1 (error 0.25, tolerance 0.5); must differ by more");
}

TEST_CASE("compare: what is printed is the worst beside its tolerance, by name and index", "[support][compare]") {
  comparison c("gradient");
  c.add(1, 1.25, 1);
  CHECK(text_of(c) == "gradient[0]: got 1, want 1.25 (error 0.25, tolerance 1); 0 of 1 wrong");
  CHECK(c.worst_error() == 0.25);
  c.add(5, 5.125, 0.0625, 40);  // a smaller error, a smaller tolerance
  CHECK(text_of(c) == "gradient[40]: got 5, want 5.125 (error 0.125, tolerance 0.0625); 1 of 2 wrong");
  c.add(7, 8, 1);
  CHECK(text_of(c) == "gradient[40]: got 5, want 5.125 (error 0.125, tolerance 0.0625); 1 of 3 wrong");
  c.add(3, 3.5, 0);  // any error is more than a tolerance of 0
  CHECK(text_of(c) == "gradient[3]: got 3, want 3.5 (error 0.5, tolerance 0); 2 of 4 wrong");
  CHECK(text_of(near(2, 1, {.absolute = 0.5})) == "got 2, want 1 (error 1, tolerance 0.5)");
  CHECK(text_of(near(2, 1, {.absolute = 0.5}, "loss")) == "loss: got 2, want 1 (error 1, tolerance 0.5)");
}

TEST_CASE("compare: the largest magnitude of numbers with a NaN is NaN", "[support][compare]") {
  using kd_test::largest_magnitude;
  CHECK(largest_magnitude(std::vector<float>{1, -3, 2}) == 3.0);
  CHECK(largest_magnitude(std::vector<double>{}) == 0.0);
  CHECK(largest_magnitude(std::vector<double>{1, -inf}) == inf);
  for (const std::vector<double>& numbers :
       std::vector<std::vector<double>>{{not_a_number, 1}, {1, not_a_number, 2}, {inf, not_a_number}})
    CHECK(std::isnan(largest_magnitude(numbers)));
}
