#include "kd/cpu/optim.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include "golden/optim_golden.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/numbers.hpp"
#include "support/rules.hpp"

using kd::cpu::parallel;
using kd::optim::adam;
using kd::optim::adamw;
using kd::optim::lion;
using kd::optim::live_runs;
using kd::optim::sgd;
using kd_test::for_each_rule;
using kd_test::near;

namespace {

/// The buffers of an optimiser in the middle of a run, with numbers in the states too.
template <class Rule>
struct buffers : kd_test::weights<Rule> {
  std::vector<float> g;

  explicit buffers(std::size_t n)
      : kd_test::weights<Rule>(kd_test::random_floats(n, 1)), g(kd_test::random_floats(n, 2)) {
    std::uint32_t draw = 3;
    for (auto& state : this->states) {
      state = kd_test::random_floats(n, draw++);
      for (float& x : state) x = std::abs(x);  // Adam's second moment is never negative
    }
  }
};
template <class Rule>
bool operator==(const buffers<Rule>& a, const buffers<Rule>& b) {
  const auto equal = [](const std::vector<float>& x, const std::vector<float>& y) {
    return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0);
  };
  return equal(a.w, b.w) && equal(a.g, b.g) && std::equal(a.states.begin(), a.states.end(), b.states.begin(), equal);
}

template <class Rule>
void update_runs(buffers<Rule>& b, const Rule& rule, std::uint64_t step, std::span<const live_runs> runs,
                 int threads = 1) {
  kd::cpu::update(parallel{threads}, rule, rule.learning_rate, step, runs, b.w.data(), b.g.data(), b.pointers());
}
template <class Rule>
void update_all(buffers<Rule>& b, const Rule& rule, std::uint64_t step, int threads = 1) {
  const live_runs all{0, b.w.size(), b.w.size(), 1};
  update_runs(b, rule, step, std::span(&all, 1), threads);
}

/// The weights after each golden step; the six weights are repeated to fill vectors and a tail. Five steps of a dozen
/// float operations each, both sides; weights near zero are sums of larger changes.
template <class Rule>
kd_test::comparison five_steps(const Rule& rule, const float (&want)[kd_golden::steps * kd_golden::weights]) {
  constexpr std::size_t n = kd_golden::weights, copies = 7;
  std::vector<float> start;
  for (std::size_t c = 0; c < copies; ++c) start.insert(start.end(), kd_golden::start, kd_golden::start + n);
  kd_test::weights<Rule> all(start);
  kd_test::comparison weights("weight");
  for (std::size_t step = 0; step < kd_golden::steps; ++step) {
    std::vector<float> g, expected;
    for (std::size_t c = 0; c < copies; ++c) {
      g.insert(g.end(), kd_golden::gradients + step * n, kd_golden::gradients + (step + 1) * n);
      expected.insert(expected.end(), want + step * n, want + (step + 1) * n);
    }
    kd::cpu::update(parallel{2}, rule, kd_golden::learning_rates[step], step + 1, n * copies, all.w.data(), g.data(),
                    all.pointers());
    weights.add_all(all.w, expected, {.relative = 2e-6, .scale_at_least = 0.01});
  }
  return weights;
}

}  // namespace

TEST_CASE("cpu optim: five steps match PyTorch", "[cpu][optim]") {
  CHECK(five_steps(adam{}, kd_golden::adam_weights));
  CHECK(five_steps(adam{.beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .weight_decay = 0.1},
                   kd_golden::adam_decay_weights));
  CHECK(five_steps(adamw{}, kd_golden::adamw_weights));
  CHECK(five_steps(adamw{.beta1 = 0.5, .beta2 = 0.9, .epsilon = 1e-6, .weight_decay = 0.5},
                   kd_golden::adamw_decay_weights));
  CHECK(five_steps(sgd{}, kd_golden::sgd_weights));
  CHECK(five_steps(sgd{.weight_decay = 0.1}, kd_golden::sgd_decay_weights));
  CHECK(five_steps(sgd{.momentum = 0.9}, kd_golden::sgd_momentum_weights));
  CHECK(five_steps(sgd{.momentum = 0.9, .dampening = 0.3, .weight_decay = 0.01}, kd_golden::sgd_dampening_weights));
  CHECK(five_steps(sgd{.momentum = 0.8, .weight_decay = 0.01, .nesterov = true}, kd_golden::sgd_nesterov_weights));
}

TEST_CASE("cpu optim: at every vector width four steps match the float64 definition", "[cpu][optim]") {
  constexpr std::size_t n = 100;
  const std::vector<live_runs> runs{{1, 30, 40, 2}, {90, 10, 10, 1}};  // whole vectors and tails of every length
  const auto live = kd_test::live_elements(runs, n);
  const auto start = kd_test::random_floats(n, 1);
  for_each_rule([&]<class Rule>(const Rule& rule) {
    const auto check = [&]<std::size_t Width>(std::integral_constant<std::size_t, Width>) {
      CAPTURE(Rule::name, Width);
      kd_test::weights<Rule> got(start);
      kd_test::weights<Rule, double> want({start.begin(), start.end()});
      for (std::uint32_t step = 1; step <= 4; ++step) {
        const double rate = rule.learning_rate / step;
        const auto g = kd_test::random_floats(n, 10 + step);
        kd_test::define_step(rule, rate, step, g, live, want);
        kd::cpu::detail::update_runs<Width>(parallel{2}, rule, rule.factors(rate, step), runs, got.w.data(), g.data(),
                                            got.pointers());
      }
      // Four steps of a dozen float operations on weights of about 1.
      CHECK(near(got.w, want.w, {.of_largest = 1e-6}));
      for (int s = 0; s < Rule::states; ++s) CHECK(near(got.states[s], want.states[s], {.absolute = 1e-6}));
    };
    check(std::integral_constant<std::size_t, 1>{});
    check(std::integral_constant<std::size_t, 4>{});
    check(std::integral_constant<std::size_t, 8>{});
    check(std::integral_constant<std::size_t, 16>{});
  });
}

TEST_CASE("cpu optim: any number of threads gives the same bits", "[cpu][optim]") {
  for_each_rule([]<class Rule>(const Rule& rule) {
    for (const std::size_t n : {0u, 1u, 15u, 16u, 17u, 1000u}) {
      const buffers<Rule> before(n);
      buffers<Rule> one = before;
      update_all(one, rule, 2, 1);
      CHECK((n == 0 || one.w != before.w));
      for (const int threads : {2, 3, 7}) {
        buffers<Rule> other = before;
        update_all(other, rule, 2, threads);
        CHECK(other == one);
      }
    }
  });
}

TEST_CASE("cpu optim: an element's bits do not depend on its place", "[cpu][optim]") {
  for_each_rule([]<class Rule>(const Rule& rule) {
    const buffers<Rule> before(100);
    buffers<Rule> whole = before, pieces = before;
    update_all(whole, rule, 3);
    std::vector<live_runs> runs;
    for (std::size_t begin = 0, length = 1; begin < 100; begin += length, ++length)
      runs.push_back(kd::optim::runs_of({begin, std::min<std::size_t>(begin + length, 100)}));
    update_runs(pieces, rule, 3, runs, 2);
    CHECK(pieces == whole);
  });
}

TEST_CASE("cpu optim: runs touch live elements as the full form does, and no other", "[cpu][optim]") {
  const std::vector<live_runs> runs{{5, 64, 100, 3}, {320, 1, 3, 20}, {400, 130, 130, 1},
                                    {600, 0, 10, 4}, {700, 7, 7, 0},  {701, 33, 40, 2}};
  const auto live = kd_test::live_elements(runs, 800);
  for_each_rule([&]<class Rule>(const Rule& rule) {
    for (const int threads : {1, 2, 5}) {
      buffers<Rule> before(800);
      buffers<Rule> full = before;
      update_all(full, rule, 4);
      // A skipped gradient may hold anything: it is not read.
      for (std::size_t i = 0; i < 800; ++i)
        if (!live[i]) before.g[i] = std::numeric_limits<float>::quiet_NaN();
      buffers<Rule> partial = before;
      update_runs(partial, rule, 4, runs, threads);
      buffers<Rule> expected = before;
      for (std::size_t i = 0; i < 800; ++i) {
        if (!live[i]) continue;
        expected.w[i] = full.w[i];
        for (int s = 0; s < Rule::states; ++s) expected.states[s][i] = full.states[s][i];
      }
      CHECK(partial == expected);
    }
  });
}

TEST_CASE("cpu optim: skipping the taps that only meet padding is exact", "[cpu][optim]") {
  constexpr kd::conv2d_geometry g{16, 2, 2, 8, 3, 3, 2, 2, 1, 1};
  constexpr auto runs = kd::optim::live_runs_of(g);
  const auto live = kd_test::live_elements(runs, g.weights());
  std::size_t checked = 0;
  for_each_rule([&]<class Rule>(const Rule& rule) {
    if (!rule.keeps_weights_without_gradient()) return;
    CAPTURE(Rule::name);
    buffers<Rule> full(g.weights());
    for (auto& state : full.states) state.assign(g.weights(), 0.0f);
    for (std::size_t i = 0; i < g.weights(); ++i)
      if (!live[i]) full.g[i] = 0;
    buffers<Rule> partial = full;
    for (std::uint64_t step = 1; step <= 4; ++step) {
      update_all(full, rule, step);
      update_runs(partial, rule, step, runs);
    }
    CHECK(partial == full);
    ++checked;
  });
  CHECK(checked > kd_test::tested_rules::size);  // every rule has such settings, sgd several
}

TEST_CASE("cpu optim: sgd without momentum leaves its buffer alone, which may be null", "[cpu][optim]") {
  std::vector<float> w(33, 1.0f), g(33, 0.5f), m(33, 7.0f);
  kd::cpu::update(parallel{1}, sgd{}, 0.5, 1, 33, w.data(), g.data(), {});
  CHECK(w == std::vector<float>(33, 0.75f));
  kd::cpu::update(parallel{1}, sgd{}, 0.5, 2, 33, w.data(), g.data(), {m.data()});
  CHECK(w == std::vector<float>(33, 0.5f));
  CHECK(m == std::vector<float>(33, 7.0f));
  kd::cpu::update(parallel{1}, sgd{.momentum = 0.9}, 0.5, 1, 33, w.data(), g.data(), {m.data()});
  CHECK(w == std::vector<float>(33, 0.25f));
  CHECK(m == g);
}

TEST_CASE("cpu optim: lion moves by the learning rate, not at all at 0, and a NaN is not lost", "[cpu][optim]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> w(4, 1.0f), g{1e-30f, -3.0f, 0.0f, nan}, m(4);
  kd::cpu::update(parallel{1}, lion{}, 0.25, 1, 4, w.data(), g.data(), {m.data()});
  CHECK(w[0] == 0.75f);
  CHECK(w[1] == 1.25f);
  CHECK(w[2] == 1.0f);
  CHECK(std::isnan(w[3]));
  CHECK(near(m[1], -0.03, {.relative = 1e-6}));
}

TEST_CASE("cpu optim: bad rules, rates and steps are rejected before anything moves", "[cpu][optim]") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinite = std::numeric_limits<double>::infinity();
  for_each_rule([&]<class Rule>(const Rule& rule) {
    CAPTURE(Rule::name);
    const buffers<Rule> before(20);
    buffers<Rule> b = before;
    const auto run = [&](const Rule& how, double rate, std::uint64_t step) {
      kd::cpu::update(parallel{1}, how, rate, step, 20, b.w.data(), b.g.data(), b.pointers());
    };
    Rule bad = rule;
    bad.learning_rate = -1;
    CHECK_THROWS_AS(run(bad, 0.1, 1), kd::argument_error);
    for (const double rate : {nan, -0.1, infinite}) CHECK_THROWS_AS(run(rule, rate, 1), kd::argument_error);
    CHECK_THROWS_AS(run(rule, 0.1, 0), kd::argument_error);
    CHECK(b == before);
    run(rule, 0.1, 1);
    CHECK_FALSE(b == before);
  });
}
