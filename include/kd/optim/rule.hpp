/// What the host asks of an optimiser's rule. kd/formula/rule.hpp says how one is written.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "kd/core/options.hpp"
#include "kd/core/step_scalars.hpp"
#include "kd/formula/rule.hpp"

namespace kd::inline KD_ABI::optim {

using formula::factors_of;

namespace detail {

struct any_math {};

template <class Rule>
inline constexpr std::size_t states_of = 0;
template <class Rule>
requires requires { Rule::states; }
inline constexpr std::size_t states_of<Rule> = Rule::states;

}  // namespace detail

/// An optimiser. A type derived from one is none: it would run, and be recorded, as its base.
template <class Rule>
concept rule = has_options<Rule> && requires(const Rule& r, float& w, float* state) {
  { Rule::name } -> std::convertible_to<std::string_view>;
  { Rule::states } -> std::convertible_to<std::size_t>;
  { r.learning_rate } -> std::convertible_to<double>;
  { r.keeps_weights_without_gradient() } -> std::same_as<bool>;
  r.factors(0.1, std::uint64_t{1});
  Rule::template step<detail::any_math>(w, 1.0f, state, r.factors(0.1, std::uint64_t{1}));
};

/// Whether the factors of a step fit where the steps of an epoch are kept, byte for byte.
template <class Rule>
concept fits_step_scalars = std::is_trivially_copyable_v<factors_of<Rule>> &&
                            sizeof(factors_of<Rule>) <= sizeof(step_scalars::optimiser);

/// What a rule keeps, in the layout of the weights: one buffer for each of its states, all zero before the first step.
template <class Rule>
using state_buffers = std::array<float*, detail::states_of<Rule>>;

/// Throws argument_error on an option that is not finite or outside of its limits, and on options in conflict.
template <rule Rule>
void validate(const Rule& rule) {
  static_assert(every_member_is_an_option<Rule>(),
                "kd::optim::validate: every member of a rule must be declared in its options()");
  validate_options(text("kd::optim::", Rule::name), rule);
}

}  // namespace kd::inline KD_ABI::optim
