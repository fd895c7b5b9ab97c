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
#include "kd/core/random.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"

using kd::cpu::parallel;
using kd::optim::adam;
using kd::optim::adamw;
using kd::optim::live_runs;
using kd::optim::sgd;

namespace {

/// The four buffers of an optimiser.
struct buffers {
  std::vector<float> w, g, m, v;

  buffers(std::size_t n, std::uint64_t seed) : w(n), g(n), m(n), v(n) {
    for (std::size_t i = 0; i < n; ++i) {
      const auto words = kd::random_at(seed, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i));
      w[i] = kd::uniform(words[0]) - 0.5f;
      g[i] = kd::uniform(words[1]) - 0.5f;
      m[i] = kd::uniform(words[2]) - 0.5f;
      v[i] = kd::uniform(words[3]);
    }
  }
  friend bool operator==(const buffers& a, const buffers& b) {
    const auto equal = [](const std::vector<float>& x, const std::vector<float>& y) {
      return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0);
    };
    return equal(a.w, b.w) && equal(a.g, b.g) && equal(a.m, b.m) && equal(a.v, b.v);
  }
};

template <class Rule>
void update_all(buffers& b, const Rule& rule, std::uint64_t step, int threads = 1) {
  kd::cpu::update(parallel{threads}, rule, rule.learning_rate, step, b.w.size(), b.w.data(), b.g.data(), b.m.data(),
                  b.v.data());
}
template <class Rule>
void update_runs(buffers& b, const Rule& rule, std::uint64_t step, std::span<const live_runs> runs, int threads = 1) {
  kd::cpu::update(parallel{threads}, rule, rule.learning_rate, step, runs, b.w.data(), b.g.data(), b.m.data(),
                  b.v.data());
}

/// The weights after each golden step; the six weights are repeated to fill vectors and a tail. Five steps of a dozen
/// float operations each, both sides; weights near zero are sums of larger changes.
template <class Rule>
kd_test::comparison five_steps(const Rule& rule, const float (&want)[kd_golden::steps * kd_golden::weights]) {
  constexpr std::size_t n = kd_golden::weights, copies = 7;
  std::vector<float> w, m(n * copies), v(n * copies);
  for (std::size_t c = 0; c < copies; ++c) w.insert(w.end(), kd_golden::start, kd_golden::start + n);
  kd_test::comparison weights("weight");
  for (std::size_t step = 0; step < kd_golden::steps; ++step) {
    std::vector<float> g, expected;
    for (std::size_t c = 0; c < copies; ++c) {
      g.insert(g.end(), kd_golden::gradients + step * n, kd_golden::gradients + (step + 1) * n);
      expected.insert(expected.end(), want + step * n, want + (step + 1) * n);
    }
    kd::cpu::update(parallel{2}, rule, kd_golden::learning_rates[step], step + 1, n * copies, w.data(), g.data(),
                    m.data(), v.data());
    weights.add_all(w, expected, {.relative = 2e-6, .scale_at_least = 0.01});
  }
  return weights;
}

/// The rules over which the exactness tests run.
template <class Test>
void for_each_rule(const Test& test) {
  test(adam{.learning_rate = 0.1});
  test(adam{.learning_rate = 0.1, .weight_decay = 0.2});
  test(adamw{.learning_rate = 0.1});
  test(sgd{.learning_rate = 0.1});
  test(sgd{.learning_rate = 0.1, .momentum = 0.9, .dampening = 0.1, .weight_decay = 0.2});
  test(sgd{.learning_rate = 0.1, .momentum = 0.9, .nesterov = true});
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

TEST_CASE("cpu optim: any number of threads gives the same bits", "[cpu][optim]") {
  for_each_rule([](const auto& rule) {
    for (const std::size_t n : {0u, 1u, 15u, 16u, 17u, 1000u}) {
      const buffers before(n, 5);
      buffers one = before;
      update_all(one, rule, 2, 1);
      CHECK((n == 0 || one.w != before.w));
      for (const int threads : {2, 3, 7}) {
        buffers other = before;
        update_all(other, rule, 2, threads);
        CHECK(other == one);
      }
    }
  });
}

TEST_CASE("cpu optim: an element's bits do not depend on its place", "[cpu][optim]") {
  for_each_rule([](const auto& rule) {
    const buffers before(100, 6);
    buffers whole = before, pieces = before;
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
  std::vector<char> live(800);
  for (const live_runs& r : runs)
    for (std::size_t i = 0; i < r.count; ++i)
      for (std::size_t j = 0; j < r.run; ++j) live[r.begin + i * r.stride + j] = 1;
  for_each_rule([&](const auto& rule) {
    for (const int threads : {1, 2, 5}) {
      buffers before(800, 7);
      buffers full = before;
      update_all(full, rule, 4);
      buffers partial = before;
      // A skipped gradient may hold anything: it is not read.
      for (std::size_t i = 0; i < 800; ++i)
        if (!live[i]) before.g[i] = partial.g[i] = std::numeric_limits<float>::quiet_NaN();
      update_runs(partial, rule, 4, runs, threads);
      buffers expected = before;
      for (std::size_t i = 0; i < 800; ++i)
        if (live[i]) expected.w[i] = full.w[i], expected.m[i] = full.m[i], expected.v[i] = full.v[i];
      CHECK(partial == expected);
    }
  });
}

TEST_CASE("cpu optim: skipping the taps that only meet padding is exact", "[cpu][optim]") {
  constexpr kd::conv2d_geometry g{16, 2, 2, 8, 3, 3, 2, 2, 1, 1};
  constexpr auto runs = kd::optim::live_runs_of(g);
  std::vector<char> live(g.weights());
  for (const live_runs& r : std::span<const live_runs>(runs))
    for (std::size_t i = 0; i < r.count; ++i)
      for (std::size_t j = 0; j < r.run; ++j) live[r.begin + i * r.stride + j] = 1;
  const auto check = [&](const auto& rule) {
    REQUIRE(rule.keeps_weights_without_gradient());
    buffers full(g.weights(), 8);
    full.m.assign(g.weights(), 0.0f);
    full.v.assign(g.weights(), 0.0f);
    for (std::size_t i = 0; i < g.weights(); ++i)
      if (!live[i]) full.g[i] = 0;
    buffers partial = full;
    for (std::uint64_t step = 1; step <= 4; ++step) {
      update_all(full, rule, step);
      update_runs(partial, rule, step, runs);
    }
    CHECK(partial == full);
  };
  check(adam{});
  check(adamw{.weight_decay = 0});
  check(sgd{.momentum = 0.9});
}

TEST_CASE("cpu optim: every vector width computes the same update", "[cpu][optim]") {
  // A width may contract products and sums differently: a few units in the last place of float.
  const auto update_at = [](auto width, buffers& b, const auto& pass_of) {
    const live_runs all{0, b.w.size(), b.w.size(), 1};
    kd::cpu::detail::over_runs<decltype(width)::value>(parallel{2}, std::span(&all, 1), pass_of(b));
  };
  const auto check = [&](const auto& pass_of) {
    const buffers before(100, 9);
    buffers want = before;
    update_at(std::integral_constant<std::size_t, 1>{}, want, pass_of);
    CHECK(want.w != before.w);
    const auto same = [&](auto width) {
      buffers got = before;
      update_at(width, got, pass_of);
      CHECK(kd_test::near(got.w, want.w, {.of_largest = 1e-6}));
      CHECK(kd_test::near(got.m, want.m, {.of_largest = 1e-6}));
      CHECK(kd_test::near(got.v, want.v, {.of_largest = 1e-6}));
    };
    same(std::integral_constant<std::size_t, 4>{});
    same(std::integral_constant<std::size_t, 8>{});
    same(std::integral_constant<std::size_t, 16>{});
  };
  check([](buffers& b) {
    return kd::cpu::detail::adam_pass{kd::optim::factors(adamw{}, 0.1, 3), b.w.data(), b.g.data(), b.m.data(),
                                      b.v.data()};
  });
  check([](buffers& b) {
    return kd::cpu::detail::sgd_pass{kd::optim::factors(sgd{.momentum = 0.9, .nesterov = true}, 0.1, 3), b.w.data(),
                                     b.g.data(), b.m.data()};
  });
}

TEST_CASE("cpu optim: unused states may be null", "[cpu][optim]") {
  std::vector<float> w(33, 1.0f), g(33, 0.5f), m(33);
  kd::cpu::update(parallel{1}, sgd{}, 0.5, 1, 33, w.data(), g.data(), nullptr, nullptr);
  CHECK(w == std::vector<float>(33, 0.75f));
  kd::cpu::update(parallel{1}, sgd{.momentum = 0.9}, 0.5, 1, 33, w.data(), g.data(), m.data(), nullptr);
  CHECK(w == std::vector<float>(33, 0.5f));
  CHECK(m == g);
}

TEST_CASE("cpu optim: bad rules, rates and steps are rejected before anything moves", "[cpu][optim]") {
  const buffers before(20, 10);
  buffers b = before;
  const auto run = [&](const auto& rule, double rate, std::uint64_t step) {
    kd::cpu::update(parallel{1}, rule, rate, step, 20, b.w.data(), b.g.data(), b.m.data(), b.v.data());
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(run(adam{.epsilon = -1}, 0.1, 1), kd::argument_error);
  CHECK_THROWS_AS(run(adamw{.beta1 = nan}, 0.1, 1), kd::argument_error);
  CHECK_THROWS_AS(run(sgd{.momentum = -1}, 0.1, 1), kd::argument_error);
  CHECK_THROWS_AS(run(adam{}, nan, 1), kd::argument_error);
  CHECK_THROWS_AS(run(adamw{}, -0.1, 1), kd::argument_error);
  CHECK_THROWS_AS(run(sgd{}, std::numeric_limits<double>::infinity(), 1), kd::argument_error);
  CHECK_THROWS_AS(run(adam{}, 0.1, 0), kd::argument_error);
  CHECK(b == before);
}
