/// The optimisers in float64, written again from their papers, and the settings of each that tests run with. A new rule
/// of kd/optim/all_rules.hpp needs its `define` and `settings_of` here; the tests of both devices then have it.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "kd/core/type_list.hpp"
#include "kd/optim/all_rules.hpp"
#include "kd/optim/live_runs.hpp"
#include "kd/optim/rule.hpp"

namespace kd_test {

// ---- two rules as a program may bring them: one that keeps nothing, and one that keeps more than any of kd's

struct fall_factors {
  float rate;
};
/// w -= learning_rate * sign(g)
struct sign_descent {
  double learning_rate = 0.01;

  static constexpr const char* name = "sign_descent";
  static constexpr int states = 0;
  static constexpr void options(auto&& each) {
    using namespace kd::formula;
    each(option{"learning_rate", &sign_descent::learning_rate, 0, unbounded, "0.01 is usual"});
  }
  constexpr bool keeps_weights_without_gradient() const { return true; }
  fall_factors factors(double rate, std::uint64_t) const { return {static_cast<float>(rate)}; }
  template <class Math, class Real>
  KD_FORMULA static void step(Real& w, Real g, Real*, const fall_factors& f) {
    w = Math::fma(-f.rate, Math::sign(g), w);
  }
};

struct smooth_factors {
  float carry, take, rate;
};
/// The gradient smoothed three times over: a = decay * a + (1 - decay) * g; b of a, c of b likewise;
/// w -= learning_rate * c.
struct smoothed_descent {
  double learning_rate = 0.1;
  float decay = 0.5f;

  static constexpr const char* name = "smoothed_descent";
  static constexpr int states = 3;
  static constexpr void options(auto&& each) {
    using namespace kd::formula;
    each(option{"learning_rate", &smoothed_descent::learning_rate, 0, unbounded, "0.1 is usual"});
    each(option{"decay", &smoothed_descent::decay, 0, below{1}, "0.5 is usual"});
  }
  constexpr bool keeps_weights_without_gradient() const { return true; }
  smooth_factors factors(double rate, std::uint64_t) const { return {decay, 1 - decay, static_cast<float>(rate)}; }
  template <class Math, class Real>
  KD_FORMULA static void step(Real& w, Real g, Real* state, const smooth_factors& f) {
    for (int i = 0; i < states; ++i) g = state[i] = Math::fma2(f.carry, state[i], f.take, g);
    w = Math::fma(-f.rate, g, w);
  }
};

/// What the tests run over.
using tested_rules = decltype(kd::optim::all_rules{} + kd::type_list<sign_descent, smoothed_descent>{});

// ---- definitions: one step of a weight, number `number` from 1

inline void define(const kd::optim::adam& rule, double rate, double number, double& w, double g, double* state) {
  g += rule.weight_decay * w;
  state[0] = rule.beta1 * state[0] + (1 - rule.beta1) * g;
  state[1] = rule.beta2 * state[1] + (1 - rule.beta2) * g * g;
  const double mean = state[0] / (1 - std::pow(rule.beta1, number));
  const double square = state[1] / (1 - std::pow(rule.beta2, number));
  w -= rate * mean / (std::sqrt(square) + rule.epsilon);
}
inline void define(const kd::optim::adamw& rule, double rate, double number, double& w, double g, double* state) {
  w -= rate * rule.weight_decay * w;
  define(kd::optim::adam{.beta1 = rule.beta1, .beta2 = rule.beta2, .epsilon = rule.epsilon}, rate, number, w, g, state);
}
inline void define(const kd::optim::sgd& rule, double rate, double number, double& w, double g, double* state) {
  g += rule.weight_decay * w;
  if (rule.momentum != 0) {
    state[0] = number == 1 ? g : rule.momentum * state[0] + (1 - rule.dampening) * g;
    g = rule.nesterov ? g + rule.momentum * state[0] : state[0];
  }
  w -= rate * g;
}
inline void define(const kd::optim::lion& rule, double rate, double, double& w, double g, double* state) {
  const double blend = rule.beta1 * state[0] + (1 - rule.beta1) * g;
  const double update = blend > 0 ? 1 : blend < 0 ? -1 : 0;
  w -= rate * (update + rule.weight_decay * w);
  state[0] = rule.beta2 * state[0] + (1 - rule.beta2) * g;
}
inline void define(const sign_descent&, double rate, double, double& w, double g, double*) {
  w -= g > 0 ? rate : g < 0 ? -rate : 0;
}
inline void define(const smoothed_descent& rule, double rate, double, double& w, double g, double* state) {
  for (int i = 0; i < 3; ++i) g = state[i] = rule.decay * state[i] + (1 - rule.decay) * g;
  w -= rate * g;
}

// ---- settings

inline std::vector<kd::optim::adam> settings_of(std::type_identity<kd::optim::adam>) {
  return {{.learning_rate = 0.1},
          {.learning_rate = 0.1, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .weight_decay = 0.2}};
}
inline std::vector<kd::optim::adamw> settings_of(std::type_identity<kd::optim::adamw>) {
  return {{.learning_rate = 0.1, .weight_decay = 0}, {.learning_rate = 0.1, .weight_decay = 0.3}};
}
inline std::vector<kd::optim::sgd> settings_of(std::type_identity<kd::optim::sgd>) {
  return {{.learning_rate = 0.1},
          {.learning_rate = 0.1, .weight_decay = 0.2},
          {.learning_rate = 0.1, .momentum = 0.9},
          {.learning_rate = 0.1, .momentum = 0.9, .dampening = 0.1, .weight_decay = 0.2},
          {.learning_rate = 0.1, .momentum = 0.9, .nesterov = true}};
}
inline std::vector<kd::optim::lion> settings_of(std::type_identity<kd::optim::lion>) {
  return {{.learning_rate = 0.01}, {.learning_rate = 0.01, .beta1 = 0.8, .beta2 = 0.95, .weight_decay = 0.3}};
}
inline std::vector<sign_descent> settings_of(std::type_identity<sign_descent>) { return {{}}; }
inline std::vector<smoothed_descent> settings_of(std::type_identity<smoothed_descent>) { return {{}}; }

/// Calls test(rule) for every setting of every rule.
template <class Test>
void for_each_rule(const Test& test) {
  const auto settings = [&]<class Rule>(std::type_identity<Rule> type) {
    for (const Rule& rule : settings_of(type)) test(rule);
  };
  [&]<class... Rules>(kd::type_list<Rules...>) { (settings(std::type_identity<Rules>{}), ...); }(tested_rules{});
}

// ---- weights

/// The buffers of an optimiser as vectors, and the states' addresses as an update takes them.
template <class Rule, class Number = float>
struct weights {
  std::vector<Number> w;
  std::array<std::vector<Number>, Rule::states> states;

  explicit weights(std::vector<Number> start) : w(std::move(start)) { states.fill(std::vector<Number>(w.size())); }
  kd::optim::state_buffers<Rule> pointers() {
    kd::optim::state_buffers<Rule> all;
    for (std::size_t s = 0; s < all.size(); ++s) all[s] = states[s].data();
    return all;
  }
};

/// One step of the definition on each element that `live` marks.
template <class Rule>
void define_step(const Rule& rule, double rate, double number, const std::vector<float>& g,
                 const std::vector<char>& live, weights<Rule, double>& all) {
  for (std::size_t i = 0; i < g.size(); ++i) {
    if (!live[i]) continue;
    std::array<double, std::max(Rule::states, 1)> state{};
    for (int s = 0; s < Rule::states; ++s) state[s] = all.states[s][i];
    define(rule, rate, number, all.w[i], g[i], state.data());
    for (int s = 0; s < Rule::states; ++s) all.states[s][i] = state[s];
  }
}

/// Which of n elements are in one of the runs.
inline std::vector<char> live_elements(std::span<const kd::optim::live_runs> runs, std::size_t n) {
  std::vector<char> live(n);
  for (const kd::optim::live_runs& r : runs)
    for (std::size_t i = 0; i < r.count; ++i)
      for (std::size_t j = 0; j < r.run; ++j) live[r.begin + i * r.stride + j] = 1;
  return live;
}

}  // namespace kd_test
