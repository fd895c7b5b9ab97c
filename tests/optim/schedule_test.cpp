#include "kd/optim/schedule.hpp"

#include <cmath>
#include <cstddef>
#include <limits>

#include "golden/optim_golden.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"

using kd::optim::schedule;

namespace {

/// The rates at positions 0, 1, ... from a base of 0.1; both sides compute in double, torch step by step from the rate
/// before, which loses a few units in the last place.
template <std::size_t Count>
kd_test::comparison rates(const schedule& s, const double (&want)[Count]) {
  double got[Count];
  for (std::size_t i = 0; i < Count; ++i) got[i] = s.rate(0.1, static_cast<double>(i));
  return kd_test::near(got, want, {.of_largest = 1e-14}, "rate");
}

}  // namespace

TEST_CASE("schedule: every kind matches PyTorch", "[optim][schedule]") {
  CHECK(rates(schedule::step(3, 0.5), kd_golden::step_rates));
  CHECK(rates(schedule::cosine(8, 0.01), kd_golden::cosine_rates));
  CHECK(rates(schedule::one_cycle(20), kd_golden::one_cycle_rates));
  CHECK(rates(schedule::one_cycle(3), kd_golden::one_cycle_short_rates));
  CHECK(schedule::constant().rate(0.1, 7) == 0.1);
  CHECK(schedule{}.rate(0.25, 1e9) == 0.25);
}

TEST_CASE("schedule: ends and fractions of an epoch", "[optim][schedule]") {
  CHECK(kd_test::close(schedule::cosine(10).rate(1, 5), 0.5, 1e-15));
  CHECK(kd_test::close(schedule::cosine(10).rate(1, 10), 0, 1e-15));
  CHECK(kd_test::close(schedule::cosine(10, 0.2).rate(1, 2.5), 0.2 + 0.4 * (1 + std::sqrt(0.5)), 1e-15));
  CHECK(schedule::step(2).rate(1, 1.99) == 1);
  CHECK(kd_test::close(schedule::step(2).rate(1, 2), 0.1, 1e-15));
  CHECK(kd_test::close(schedule::one_cycle(100).rate(1, 0), 0.04, 1e-15));
  CHECK(kd_test::close(schedule::one_cycle(100).rate(1, 29), 1, 1e-15));
  CHECK(kd_test::close(schedule::one_cycle(100).rate(1, 99), 4e-6, 1e-15));
  // The rise ends at step 0: no step is left to rise over.
  CHECK(schedule{.shape = schedule::kind::one_cycle, .steps = 2, .rise = 0.5}.rate(1, 0) == 1);
  CHECK(schedule::one_cycle(1).rate(1, 0) == 4e-6);
  CHECK(schedule::one_cycle(9).counts_steps());
  CHECK(!schedule::cosine(9).counts_steps());
}

TEST_CASE("schedule: options and positions out of range are rejected", "[optim][schedule]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const schedule& bad :
       {schedule::step(0), schedule::step(nan), schedule::step(3, -1), schedule::step(3, nan), schedule::cosine(0),
        schedule::cosine(nan), schedule::cosine(5, -0.1), schedule::cosine(5, nan), schedule::one_cycle(0),
        schedule::one_cycle(nan), schedule{.shape = schedule::kind::one_cycle, .steps = 9, .rise = 1},
        schedule{.shape = schedule::kind::one_cycle, .steps = 9, .divisor = 0},
        schedule{.shape = schedule::kind::one_cycle, .steps = 9, .final_divisor = nan},
        schedule{.shape = static_cast<schedule::kind>(9)}})
    CHECK_THROWS_AS(bad.validate(), kd::argument_error);
  for (const schedule& good : {schedule::constant(), schedule::step(3), schedule::cosine(5), schedule::one_cycle(1)})
    CHECK_NOTHROW(good.validate());
  CHECK_THROWS_AS(schedule::cosine(5).rate(1, -1), kd::argument_error);
  CHECK_THROWS_AS(schedule::cosine(5).rate(1, nan), kd::argument_error);
  CHECK_THROWS_AS(schedule::one_cycle(5).rate(1, 5), kd::argument_error);
  CHECK_THROWS_AS(schedule{.shape = static_cast<schedule::kind>(9)}.rate(1, 0), kd::argument_error);
}
