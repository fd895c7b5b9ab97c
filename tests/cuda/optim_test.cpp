#include "kd/cuda/optim.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded_array.hpp"
#include "support/message.hpp"
#include "support/numbers.hpp"
#include "support/rules.hpp"

namespace {

using kd::optim::live_runs;
using kd::optim::sgd;
using kd_test::for_each_rule;
using kd_test::guarded_array;
using kd_test::live_elements;
using kd_test::near;
using kd_test::same_bits;

/// Weights of -1 to 1 and states of 0 on the device.
template <class Rule>
struct weights_on_device {
  const kd::cuda::stream& s;
  guarded_array<float> w, g;
  std::vector<guarded_array<float>> states;

  weights_on_device(const kd::cuda::stream& stream, std::size_t n)
      : s(stream), w(s, kd_test::random_floats(n, 1)), g(s, n) {
    for (int i = 0; i < Rule::states; ++i) states.emplace_back(s, std::vector<float>(n));
  }
  void step(const kd::cuda::update_plan& plan, const Rule& rule, double rate, std::uint64_t number,
            const std::vector<float>& gradient, const std::uint32_t* stop = nullptr) {
    kd::cuda::upload(s, gradient.data(), gradient.size(), g.data());
    guarded_array<kd::optim::factors_of<Rule>> factors(s, 1);
    const auto now = rule.factors(rate, number);
    kd::cuda::upload(s, &now, 1, factors.data());
    kd::optim::state_buffers<Rule> pointers{};  // null where they are not used
    if (kd::formula::uses_states(rule))
      for (int i = 0; i < Rule::states; ++i) pointers[i] = states[i].data();
    kd::cuda::update(s, plan, rule, factors.data(), w.data(), g.data(), pointers, stop);
  }
  /// Weights, then states.
  std::vector<std::vector<float>> values() const {
    std::vector<std::vector<float>> all{w.values()};
    for (const auto& state : states) all.push_back(state.values());
    return all;
  }
};

bool all_same_bits(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), same_bits<float>);
}

/// Runs of every alignment, length and stride over 1,500 elements; 256 threads meet several groups, and one group
/// several blocks.
const std::vector<live_runs> some_runs{{5, 64, 100, 3}, {320, 1, 3, 20},    {401, 130, 130, 1}, {600, 0, 10, 4},
                                       {700, 7, 7, 0},  {701, 33, 40, 2},   {800, 8, 12, 10},   {930, 10, 17, 4},
                                       {1011, 3, 3, 1}, {1020, 480, 480, 1}};
constexpr std::size_t elements = 1500;

}  // namespace

TEST_CASE("cuda optim: four steps match the float64 definition, and dead weights keep their bits", "[cuda][optim]") {
  const kd::cuda::stream s;
  const auto live = live_elements(some_runs, elements);
  const kd::cuda::update_plan plan(s, some_runs);
  for_each_rule([&]<class Rule>(const Rule& rule) {
    CAPTURE(Rule::name);
    weights_on_device<Rule> on(s, elements), again(s, elements);
    const auto before = on.values();
    kd_test::weights<Rule, double> want({before[0].begin(), before[0].end()});
    for (std::uint32_t step = 1; step <= 4; ++step) {
      const double rate = rule.learning_rate / step;
      auto g = kd_test::random_floats(elements, 10 + step);
      kd_test::define_step(rule, rate, step, g, live, want);
      for (std::size_t i = 0; i < elements; ++i)
        if (!live[i]) g[i] = std::nanf("");  // the gradient of a dead weight is not read
      on.step(plan, rule, rate, step, g);
      again.step(plan, rule, rate, step, g);
    }
    const auto got = on.values();
    // Four steps of a dozen float operations on weights of about 1.
    CHECK(near(got[0], want.w, {.of_largest = 1e-6}));
    for (int i = 0; i < Rule::states; ++i) CHECK(near(got[i + 1], want.states[i], {.absolute = 1e-6}));
    std::size_t moved = 0, alive = 0;
    for (std::size_t i = 0; i < elements; ++i) {
      if (live[i]) {
        alive += got[0][i] != before[0][i];
        continue;
      }
      for (std::size_t array = 0; array < got.size(); ++array)
        moved += kd::kernel::float_to_bits(got[array][i]) != kd::kernel::float_to_bits(before[array][i]);
    }
    CHECK(moved == 0);
    CHECK(alive > 900);
    CHECK(all_same_bits(again.values(), got));
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
    for_each_rule([&]<class Rule>(const Rule& rule) {
      weights_on_device<Rule> one(s, n), other(s, n);
      const auto before = one.values();
      const auto g = kd_test::random_floats(n, 3);
      one.step(whole, rule, 0.1, 1, g);
      other.step(cut, rule, 0.1, 1, g);
      CHECK((n == 0 || one.values()[0] != before[0]));
      CHECK(all_same_bits(one.values(), other.values()));
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
  weights_on_device<sgd> on(s, g.weights());
  on.step(plan, sgd{.learning_rate = 0.5}, 0.5, 1, std::vector<float>(g.weights(), 1.0f));
  const auto w = on.w.values(), start = kd_test::random_floats(g.weights(), 1);
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < w.size(); ++i) wrong += w[i] != (live[i] ? start[i] - 0.5f : start[i]);
  CHECK(wrong == 0);
}

TEST_CASE("cuda optim: sgd without momentum leaves its buffer alone", "[cuda][optim]") {
  const kd::cuda::stream s;
  const live_runs all{0, 33, 33, 1};
  const kd::cuda::update_plan plan(s, std::span(&all, 1));
  guarded_array<float> w(s, std::vector<float>(33, 1.0f)), g(s, std::vector<float>(33, 0.5f)), poison(s, 33);
  guarded_array<kd::formula::sgd_factors> factors(s, 1);
  const auto now = sgd{}.factors(0.5, 1);
  kd::cuda::upload(s, &now, 1, factors.data());
  kd::cuda::update(s, plan, sgd{}, factors.data(), w.data(), g.data(), {poison.data()}, nullptr);
  CHECK(w.values() == std::vector<float>(33, 0.75f));
  CHECK(kd_test::untouched(poison.values()));
}

TEST_CASE("cuda optim: the stop flag leaves everything as it is", "[cuda][optim]") {
  const kd::cuda::stream s;
  const kd::cuda::update_plan plan(s, some_runs);
  guarded_array<std::uint32_t> stop(s, std::vector<std::uint32_t>{2}), go(s, std::vector<std::uint32_t>{0});
  for_each_rule([&]<class Rule>(const Rule& rule) {
    weights_on_device<Rule> on(s, elements);
    const auto g = kd_test::random_floats(elements, 9);
    const auto before = on.values();
    on.step(plan, rule, 0.1, 1, g, stop.data());
    CHECK(all_same_bits(on.values(), before));
    on.step(plan, rule, 0.1, 1, g, go.data());
    CHECK(!all_same_bits(on.values(), before));
  });
}

TEST_CASE("cuda optim: buffers off the alignment are refused", "[cuda][optim][errors]") {
  const kd::cuda::stream s;
  const live_runs all{0, 8, 8, 1};
  const kd::cuda::update_plan plan(s, std::span(&all, 1));
  const sgd rule{.momentum = 0.9};
  guarded_array<kd::formula::sgd_factors> factors(s, 1);
  guarded_array<float> off(s, 8, 1), g(s, 8), m(s, 8);
  const auto message = [&](float* w, float* state) {
    return kd_test::message_of<kd::argument_error>(
        [&] { kd::cuda::update(s, plan, rule, factors.data(), w, g.data(), {state}, nullptr); });
  };
  CHECK(kd_test::holds(message(off.data(), m.data()), "kd::cuda::update", "16 bytes"));
  CHECK(kd_test::holds(message(m.data(), off.data()), "kd::cuda::update", "16 bytes"));
}
