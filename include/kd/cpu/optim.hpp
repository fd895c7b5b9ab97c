/// The optimisers' updates on the CPU: one pass over flat buffers of weights, gradients and states.
///
/// Bytes moved per weight: 12 (w, g read; w written) and 8 for each state; 28 for Adam, 20 for SGD with momentum and 12
/// without.
/// Every element goes through the same machine code wherever it lies, so that results are bit-equal for any number of
/// threads and any division into runs.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/cpu/parallel.hpp"
#include "kd/cpu/vector_math.hpp"
#include "kd/optim/live_runs.hpp"
#include "kd/optim/rule.hpp"

namespace kd::inline KD_ABI::cpu {

/// Step `step` (the first is 1) of the rule on the elements of `runs`; no other element of any buffer is read or
/// written. `learning_rate` replaces the rule's own. The states are zero before the first step; those that a rule does
/// not use, sgd's without momentum, may be null. Weights are skipped exactly where
/// rule.keeps_weights_without_gradient(). Throws argument_error on a rule that optim::validate rejects, a learning rate
/// that is negative or not finite, step 0, and a null pointer to what the rule reads.
template <class Rule>
void update(const parallel& par, const Rule& rule, double learning_rate, std::uint64_t step,
            std::span<const optim::live_runs> runs, float* w, const float* g, const optim::state_buffers<Rule>& states);

/// The same on all of n elements.
template <class Rule>
void update(const parallel& par, const Rule& rule, double learning_rate, std::uint64_t step, std::size_t n, float* w,
            const float* g, const optim::state_buffers<Rule>& states) {
  const optim::live_runs all{0, n, n, 1};
  update(par, rule, learning_rate, step, std::span(&all, 1), w, g, states);
}

namespace detail {

/// The factors of a rule and the buffers they act on, without the states where these are not used.
template <class Rule, bool UsesStates>
struct rule_pass {
  static constexpr std::size_t states = UsesStates ? Rule::states : 0;
  using factors = optim::factors_of<Rule>;
  using pointers = std::array<float*, states>;

  factors f;
  float* w;
  const float* g;
  pointers state;

  /// One function for each width, never inlined: a second copy could contract a product and a sum differently and round
  /// differently.
  template <std::size_t Width, std::size_t... S>
  __attribute__((noinline)) static void vectors(std::index_sequence<S...>, const factors& all, std::size_t count,
                                                float* w, const float* g, const pointers& buffers) {
    const factors f = all;
    [[maybe_unused]] const pointers state = buffers;
    for (std::size_t i = 0; i < count * Width; i += Width) {
      real<Width> weight, gradient;
      load(weight.v, w + i);
      load(gradient.v, g + i);
      if constexpr (states == 0) {
        Rule::template step<vector_math<Width>>(weight, gradient, static_cast<real<Width>*>(nullptr), f);
      } else {
        real<Width> own[states];
        (load(own[S].v, state[S] + i), ...);
        Rule::template step<vector_math<Width>>(weight, gradient, own, f);
        (store(state[S] + i, own[S].v), ...);
      }
      store(w + i, weight.v);
    }
  }

  template <std::size_t Width>
  void run(std::size_t begin, std::size_t count) const {
    constexpr std::make_index_sequence<states> all_states;
    const std::size_t whole = count / Width, done = begin + whole * Width, rest = count - whole * Width;
    pointers at = state;
    for (float*& s : at) s += begin;
    vectors<Width>(all_states, f, whole, w + begin, g + begin, at);
    if (rest == 0) return;
    float tail[2 + states][Width] = {};
    const std::size_t bytes = rest * sizeof(float);
    std::memcpy(tail[0], w + done, bytes);
    std::memcpy(tail[1], g + done, bytes);
    for (std::size_t s = 0; s != states; ++s) {
      std::memcpy(tail[2 + s], state[s] + done, bytes);
      at[s] = tail[2 + s];
    }
    vectors<Width>(all_states, f, 1, tail[0], tail[1], at);
    std::memcpy(w + done, tail[0], bytes);
    for (std::size_t s = 0; s != states; ++s) std::memcpy(state[s] + done, tail[2 + s], bytes);
  }
};

/// pass.run(begin, count) over the elements of all runs, shared out evenly among the threads in units of 16.
template <std::size_t Width, class Pass>
void over_runs(const parallel& par, std::span<const optim::live_runs> runs, const Pass& pass) {
  constexpr std::size_t unit = 16;
  std::size_t total = 0;
  for (const optim::live_runs& r : runs) total += r.size();
  par.split((total + unit - 1) / unit, [&](std::size_t first_unit, std::size_t last_unit, std::size_t) {
    std::size_t at = first_unit * unit;  // position in the runs laid end to end
    const std::size_t end = std::min(last_unit * unit, total);
    std::size_t base = 0;
    for (const optim::live_runs& r : runs) {
      while (at < end && at - base < r.size()) {
        const std::size_t which = (at - base) / r.run, offset = (at - base) % r.run;
        const std::size_t count = std::min(r.run - offset, end - at);
        pass.template run<Width>(r.begin + which * r.stride + offset, count);
        at += count;
      }
      base += r.size();
      if (at >= end) return;
    }
  });
}

/// The rule's step with these factors, in vectors of Width floats.
template <std::size_t Width, class Rule>
void update_runs(const parallel& par, const Rule& rule, const optim::factors_of<Rule>& factors,
                 std::span<const optim::live_runs> runs, float* w, const float* g,
                 const optim::state_buffers<Rule>& states) {
  static_assert(optim::rule<Rule>, "kd::cpu::update: the optimiser must be a rule as kd/formula/rule.hpp says it");
#if !defined(__CUDA_ARCH__)  // nvcc's pass for the device needs no host code, and takes no vector in a formula
  if constexpr (formula::may_leave_states<Rule>)
    if (!rule.uses_states()) return over_runs<Width>(par, runs, rule_pass<Rule, false>{factors, w, g, {}});
  over_runs<Width>(par, runs, rule_pass<Rule, true>{factors, w, g, states});
#endif
}

template <class Rule>
void check_step(const Rule& rule, double learning_rate, std::uint64_t step, std::span<const optim::live_runs> runs,
                const float* w, const float* g, const optim::state_buffers<Rule>& states) {
  optim::validate(rule);
  if (!(learning_rate >= 0 && std::isfinite(learning_rate)))
    reject_argument("kd::cpu::update", "learning_rate must be finite and at least 0", learning_rate,
                    "check the schedule");
  if (step == 0) reject_argument("kd::cpu::update", "steps count from 1", step, "pass the steps done so far plus 1");
  const auto empty = [](const optim::live_runs& r) { return r.size() == 0; };
  if (std::all_of(runs.begin(), runs.end(), empty)) return;
  const std::size_t used = formula::uses_states(rule) ? states.size() : 0;
  if (w == nullptr || g == nullptr || std::count(states.begin(), states.begin() + used, nullptr) > 0)
    reject_argument("kd::cpu::update", text(Rule::name, " reads weights, gradients and ", used, " arrays of states"),
                    "a null pointer", "pass arrays of zeros before the first step");
}

}  // namespace detail

/// The same with the step's factors worked out before.
template <class Rule>
void update(const parallel& par, const Rule& rule, const optim::factors_of<Rule>& factors,
            std::span<const optim::live_runs> runs, float* w, const float* g,
            const optim::state_buffers<Rule>& states) {
  detail::update_runs<native_width>(par, rule, factors, runs, w, g, states);
}

template <class Rule>
void update(const parallel& par, const Rule& rule, double learning_rate, std::uint64_t step,
            std::span<const optim::live_runs> runs, float* w, const float* g,
            const optim::state_buffers<Rule>& states) {
  detail::check_step(rule, learning_rate, step, runs, w, g, states);
  update(par, rule, rule.factors(learning_rate, step), runs, w, g, states);
}

}  // namespace kd::inline KD_ABI::cpu
