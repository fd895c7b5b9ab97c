#include "kd/cuda/optim.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "kd/core/random.hpp"
#include "kd/optim/factors.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded_array.hpp"
#include "support/message.hpp"

namespace {

using kd::optim::adam;
using kd::optim::adamw;
using kd::optim::live_runs;
using kd::optim::sgd;
using kd_test::guarded_array;
using kd_test::same_bits;

/// The rules in float64, from the formulas of Kingma and Ba, Loshchilov and Hutter, and torch.optim.SGD.
struct definition {
  std::vector<double> w, m, v;

  void step(const adam& rule, bool decoupled, double rate, double number, std::size_t i, double g) {
    if (decoupled)
      w[i] -= rate * rule.weight_decay * w[i];
    else
      g += rule.weight_decay * w[i];
    m[i] = rule.beta1 * m[i] + (1 - rule.beta1) * g;
    v[i] = rule.beta2 * v[i] + (1 - rule.beta2) * g * g;
    const double mean = m[i] / (1 - std::pow(rule.beta1, number));
    const double square = v[i] / (1 - std::pow(rule.beta2, number));
    w[i] -= rate * mean / (std::sqrt(square) + rule.epsilon);
  }
  void step(const adam& rule, double rate, double number, std::size_t i, double g) {
    step(rule, false, rate, number, i, g);
  }
  void step(const adamw& rule, double rate, double number, std::size_t i, double g) {
    step(adam{rule.learning_rate, rule.beta1, rule.beta2, rule.epsilon, rule.weight_decay}, true, rate, number, i, g);
  }
  void step(const sgd& rule, double rate, double number, std::size_t i, double g) {
    g += rule.weight_decay * w[i];
    if (rule.momentum != 0) {
      m[i] = number == 1 ? g : rule.momentum * m[i] + (1 - rule.dampening) * g;
      g = rule.nesterov ? g + rule.momentum * m[i] : m[i];
    }
    w[i] -= rate * g;
  }
};

/// Weights and states on the device, and the same of the definition.
struct state {
  guarded_array<float> w, g, m, v;
  definition want;

  state(const kd::cuda::stream& s, std::size_t n)
      : w(s, kd_test::random_floats(n, 1)), g(s, n), m(s, std::vector<float>(n)), v(s, std::vector<float>(n)) {
    const auto start = kd_test::random_floats(n, 1);
    want = {{start.begin(), start.end()}, std::vector<double>(n), std::vector<double>(n)};
  }
};

template <class Rule>
void update(const kd::cuda::stream& s, const kd::cuda::update_plan& plan, const Rule& rule, double rate,
            std::uint64_t step, state& on, const std::uint32_t* stop) {
  const auto packed = kd::optim::pack_factors(kd::optim::factors(rule, rate, step));
  guarded_array<float> factors(s, std::vector<float>(packed.begin(), packed.end()));
  if constexpr (std::is_same_v<Rule, sgd>)
    kd::cuda::update_sgd(s, plan, factors.data(), on.w.data(), on.g.data(), rule.momentum == 0 ? nullptr : on.m.data(),
                         stop);
  else
    kd::cuda::update_adam(s, plan, factors.data(), on.w.data(), on.g.data(), on.m.data(), on.v.data(), stop);
}

/// Runs of every alignment, length and stride over 1,500 elements; 256 threads meet several groups, and one group
/// several blocks.
const std::vector<live_runs> some_runs{{5, 64, 100, 3}, {320, 1, 3, 20},    {401, 130, 130, 1}, {600, 0, 10, 4},
                                       {700, 7, 7, 0},  {701, 33, 40, 2},   {800, 8, 12, 10},   {930, 10, 17, 4},
                                       {1011, 3, 3, 1}, {1020, 480, 480, 1}};
constexpr std::size_t elements = 1500;

std::vector<char> live_elements(std::span<const live_runs> runs, std::size_t n) {
  std::vector<char> live(n);
  for (const live_runs& r : runs)
    for (std::size_t i = 0; i < r.count; ++i)
      for (std::size_t j = 0; j < r.run; ++j) live[r.begin + i * r.stride + j] = 1;
  return live;
}

template <class Test>
void for_each_rule(const Test& test) {
  test(adam{.learning_rate = 0.1});
  test(adam{.learning_rate = 0.1, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .weight_decay = 0.2});
  test(adamw{.learning_rate = 0.1, .weight_decay = 0.3});
  test(sgd{.learning_rate = 0.1});
  test(sgd{.learning_rate = 0.1, .weight_decay = 0.2});
  test(sgd{.learning_rate = 0.1, .momentum = 0.9, .dampening = 0.1, .weight_decay = 0.2});
  test(sgd{.learning_rate = 0.1, .momentum = 0.9, .nesterov = true});
}

}  // namespace

TEST_CASE("cuda optim: four steps match the float64 definition, and dead weights keep their bits", "[cuda][optim]") {
  const kd::cuda::stream s;
  const auto live = live_elements(some_runs, elements);
  const kd::cuda::update_plan plan(s, some_runs);
  for_each_rule([&](const auto& rule) {
    CAPTURE(rule.name, rule.weight_decay);
    state on(s, elements), again(s, elements);
    for (std::uint32_t step = 1; step <= 4; ++step) {
      const double rate = rule.learning_rate / step;
      auto g = kd_test::random_floats(elements, 10 + step);
      for (std::size_t i = 0; i < elements; ++i) {
        // The gradient of a dead weight is not read.
        if (live[i])
          on.want.step(rule, rate, step, i, g[i]);
        else
          g[i] = std::nanf("");
      }
      kd::cuda::upload(s, g.data(), elements, on.g.data());
      kd::cuda::upload(s, g.data(), elements, again.g.data());
      update(s, plan, rule, rate, step, on, nullptr);
      update(s, plan, rule, rate, step, again, nullptr);
    }
    const auto w = on.w.values(), m = on.m.values(), v = on.v.values();
    // Four steps of a dozen float operations on weights of about 1.
    CHECK(kd_test::near(w, on.want.w, {.of_largest = 1e-6}));
    CHECK(kd_test::near(m, on.want.m, {.of_largest = 1e-6}));
    CHECK(kd_test::near(v, on.want.v, {.of_largest = 1e-6}));
    const auto start = kd_test::random_floats(elements, 1);
    std::size_t moved = 0, alive = 0;
    for (std::size_t i = 0; i < elements; ++i) {
      if (live[i])
        alive += w[i] != start[i];
      else
        moved += kd::kernel::float_to_bits(w[i]) != kd::kernel::float_to_bits(start[i]) || m[i] != 0 || v[i] != 0;
    }
    CHECK(moved == 0);
    CHECK(alive > 900);
    CHECK(same_bits(again.w.values(), w));
    CHECK(same_bits(again.m.values(), m));
    CHECK(same_bits(again.v.values(), v));
  });
}

TEST_CASE("cuda optim: an element's bits do not depend on how the weights are cut", "[cuda][optim]") {
  const kd::cuda::stream s;
  for (const std::size_t n : {0u, 1u, 3u, 4u, 5u, 1023u, 1024u, 1025u}) {
    CAPTURE(n);
    std::vector<live_runs> pieces;
    for (std::size_t begin = 0, length = 1; begin < n; begin += length, ++length)
      pieces.push_back(kd::optim::runs_of({begin, std::min(begin + length, n)}));
    const live_runs all{0, n, n, 1};
    const kd::cuda::update_plan whole(s, std::span(&all, 1)), cut(s, pieces);
    for_each_rule([&](const auto& rule) {
      state one(s, n), other(s, n);
      const auto g = kd_test::random_floats(n, 3);
      kd::cuda::upload(s, g.data(), n, one.g.data());
      kd::cuda::upload(s, g.data(), n, other.g.data());
      update(s, whole, rule, 0.1, 1, one, nullptr);
      update(s, cut, rule, 0.1, 1, other, nullptr);
      CHECK((n == 0 || one.w.values() != kd_test::random_floats(n, 1)));
      CHECK(same_bits(one.w.values(), other.w.values()));
      CHECK(same_bits(one.m.values(), other.m.values()));
      CHECK(same_bits(one.v.values(), other.v.values()));
    });
  }
}

TEST_CASE("cuda optim: a vector never lies off its alignment", "[cuda][optim]") {
  const kd::cuda::detail::update_items items(some_runs);
  const auto& groups = items.groups();
  std::size_t next = 0, vectors = 0;
  for (std::size_t i = 0; i + 1 < groups.size(); ++i) {
    const auto& group = groups[i];
    CHECK(group.first == next);
    CHECK((group.width == 1 || (group.width == 4 && group.begin % 4 == 0)));
    const std::size_t runs = (groups[i + 1].first - group.first) / group.items;
    CHECK((group.width == 1 || runs == 1 || group.stride % 4 == 0));
    next = groups[i + 1].first;
    vectors += group.width == 4;
  }
  CHECK(next == items.count());
  CHECK(vectors > 4);
  CHECK(items.starts().size() == (items.count() + 255) / 256);
}

TEST_CASE("cuda optim: a network's live taps are touched in one launch", "[cuda][optim]") {
  const kd::cuda::stream s;
  constexpr kd::conv2d_geometry g{16, 2, 2, 8, 3, 3, 2, 2, 1, 1};
  constexpr auto runs = kd::optim::live_runs_of(g);
  const kd::cuda::update_plan plan(s, runs);
  CHECK(plan.items() == runs.size() / 4);  // every run is whole vectors
  const auto live = live_elements(runs, g.weights());
  state on(s, g.weights());
  const std::vector<float> ones(g.weights(), 1.0f);
  kd::cuda::upload(s, ones.data(), ones.size(), on.g.data());
  update(s, plan, sgd{.learning_rate = 0.5}, 0.5, 1, on, nullptr);
  const auto w = on.w.values(), start = kd_test::random_floats(g.weights(), 1);
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < w.size(); ++i) wrong += w[i] != (live[i] ? start[i] - 0.5f : start[i]);
  CHECK(wrong == 0);
}

TEST_CASE("cuda optim: the stop flag leaves everything as it is", "[cuda][optim]") {
  const kd::cuda::stream s;
  const kd::cuda::update_plan plan(s, some_runs);
  guarded_array<std::uint32_t> stop(s, std::vector<std::uint32_t>{2}), go(s, std::vector<std::uint32_t>{0});
  for_each_rule([&](const auto& rule) {
    state on(s, elements);
    const auto g = kd_test::random_floats(elements, 9);
    kd::cuda::upload(s, g.data(), elements, on.g.data());
    const auto w = on.w.values();
    update(s, plan, rule, 0.1, 1, on, stop.data());
    CHECK(same_bits(on.w.values(), w));
    CHECK(same_bits(on.m.values(), std::vector<float>(elements)));
    CHECK(same_bits(on.v.values(), std::vector<float>(elements)));
    update(s, plan, rule, 0.1, 1, on, go.data());
    CHECK(!same_bits(on.w.values(), w));
  });
}

TEST_CASE("cuda optim: buffers off the alignment are refused", "[cuda][optim]") {
  const kd::cuda::stream s;
  const live_runs all{0, 8, 8, 1};
  const kd::cuda::update_plan plan(s, std::span(&all, 1));
  guarded_array<float> factors(s, 8), w(s, 8, 1), g(s, 8), m(s, 8);
  const auto message = kd_test::message_of<kd::argument_error>(
      [&] { kd::cuda::update_sgd(s, plan, factors.data(), w.data(), g.data(), m.data(), nullptr); });
  CHECK(kd_test::holds(message, "kd::cuda::update", "16 bytes"));
}
