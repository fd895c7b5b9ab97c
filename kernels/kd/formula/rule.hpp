/// What an optimiser's rule is, for the loops of every device.
///
/// A rule is an aggregate of its options (kd/formula/option.hpp) with learning_rate among them, and
///   static constexpr const char* name        in recipes, messages and names of benchmarks
///   static constexpr int states              floats per weight that it keeps, any number; zero before the first step
///   static constexpr void options(auto&& each)
///   FACTORS factors(double learning_rate, std::uint64_t step) const
///       what step `step` (the first is 1) needs, worked out in double: an aggregate of numbers, at most 32 bytes. The
///       learning rate is that of the step: a schedule has its say in it.
///   template <class Math, class Real>
///   KD_FORMULA static void step(Real& w, Real g, Real* state, const FACTORS& f)
///       one step of a weight (a vector of them on the CPU) with its gradient and its states
///   constexpr bool keeps_weights_without_gradient() const
///       whether a weight whose gradient has been zero from the first step on never moves, so that it may be skipped
///   constexpr bool uses_states() const        only where some options need no states: false for those, `state` is then
///                                             null, and the buffers are neither read nor written
/// In `step` every sum with a product is written with Math: fma(a, b, c) is a b + c, fma2(a, b, c, d) is a b + c d. On
/// CUDA these are explicit instructions, and nothing else is left to contract: the same bits on any GPU. On the CPU
/// contraction is the compiler's choice. Math has sqrt(x) too, and sign(x): -1, 0, 1, or NaN.
///
/// A new optimiser is one file beside this one, kd/formula/NAME.hpp; its name in kd/optim/all_rules.hpp; and its
/// float64 definition in tests/support/rules.hpp. Both devices, the trainer, state files, recipes, tests and benchmarks
/// have it then. A rule of one's own needs the first alone, in any namespace.
#pragma once

#include <cstdint>

#include "kd/formula/abi.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// The type of what a step of the rule needs.
template <class Rule>
using factors_of = decltype(Rule{}.factors(0.0, std::uint64_t{1}));

/// Whether states can be unused: there is then a loop with and one without them.
template <class Rule>
inline constexpr bool may_leave_states = requires(const Rule& rule) {
  rule.uses_states();
};

/// Whether this rule reads and writes its states.
template <class Rule>
constexpr bool uses_states(const Rule& rule) {
  if constexpr (may_leave_states<Rule>)
    return rule.uses_states();
  else
    return Rule::states > 0;
}

}  // namespace kd::formula::inline KD_FORMULA_ABI
