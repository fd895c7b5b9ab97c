/// Adam and AdamW as PyTorch 2 computes them (torch.optim.Adam, torch.optim.AdamW; no amsgrad, no maximize).
/// Kingma, Ba: Adam. ICLR 2015, algorithm 1. Loshchilov, Hutter: Decoupled weight decay. ICLR 2019, algorithm 2.
#pragma once

#include <cmath>
#include <cstdint>
#include <string_view>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"

namespace kd::inline KD_ABI::optim {

/// Adam; weight_decay is the L2 term, added to the gradient.
struct adam {
  double learning_rate = 1e-3;
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;

  static constexpr std::string_view name = "adam";
  static constexpr int states = 2;  ///< floats per weight: first and second moment, zero before the first step

  /// Throws argument_error on a NaN, infinite or negative option, or a beta outside [0, 1).
  void validate() const;
  /// Whether a weight whose gradient has been zero from the first step on never moves, so that it may be skipped.
  constexpr bool keeps_weights_without_gradient() const { return weight_decay == 0 && epsilon > 0; }
};

/// AdamW; weight_decay shrinks the weights apart from the gradient: w -= learning_rate * weight_decay * w.
struct adamw {
  double learning_rate = 1e-3;
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 1e-2;

  static constexpr std::string_view name = "adamw";
  static constexpr int states = 2;  ///< as in adam

  void validate() const;  ///< as adam's
  constexpr bool keeps_weights_without_gradient() const { return weight_decay == 0 && epsilon > 0; }
};

namespace detail {

inline void require_not_negative(std::string_view where, std::string_view option, double value,
                                 std::string_view remedy) {
  if (!(value >= 0 && std::isfinite(value)))
    reject_argument(text("kd::optim::", where), text(option, " must be finite and at least 0"), value, remedy);
}

inline void require_beta(std::string_view where, std::string_view option, double value) {
  if (!(value >= 0 && value < 1))
    reject_argument(text("kd::optim::", where), text(option, " must be in [0, 1)"), value, "0.9 and 0.999 are usual");
}

template <class Rule>
void validate_adam(const Rule& rule) {
  require_not_negative(Rule::name, "learning_rate", rule.learning_rate, "0.001 is usual");
  require_beta(Rule::name, "beta1", rule.beta1);
  require_beta(Rule::name, "beta2", rule.beta2);
  require_not_negative(Rule::name, "epsilon", rule.epsilon, "1e-8 is usual");
  require_not_negative(Rule::name, "weight_decay", rule.weight_decay, "0 turns it off");
}

}  // namespace detail

inline void adam::validate() const { detail::validate_adam(*this); }
inline void adamw::validate() const { detail::validate_adam(*this); }

/// What one Adam step needs of its number and options, computed in double and rounded once, as PyTorch does:
///   g += l2 * w;  w *= keep;  m += (g - m) * rate1;  v = v * beta2 + rate2 * g * g;
///   w -= step * m / (sqrt(v) * root + epsilon)
struct adam_factors {
  float l2, keep, rate1, beta2, rate2, step, root, epsilon;
};

namespace detail {

template <class Rule>
adam_factors factors_of_adam(const Rule& rule, double learning_rate, std::uint64_t step) {
  const auto number = static_cast<double>(step);
  const double correction1 = 1 - std::pow(rule.beta1, number), correction2 = 1 - std::pow(rule.beta2, number);
  return {0.0f,
          1.0f,
          static_cast<float>(1 - rule.beta1),
          static_cast<float>(rule.beta2),
          static_cast<float>(1 - rule.beta2),
          static_cast<float>(learning_rate / correction1),
          static_cast<float>(1 / std::sqrt(correction2)),
          static_cast<float>(rule.epsilon)};
}

}  // namespace detail

/// Factors of step `step` (the first is 1) at this learning rate, which may come from a schedule.
inline adam_factors factors(const adam& rule, double learning_rate, std::uint64_t step) {
  adam_factors result = detail::factors_of_adam(rule, learning_rate, step);
  result.l2 = static_cast<float>(rule.weight_decay);
  return result;
}
inline adam_factors factors(const adamw& rule, double learning_rate, std::uint64_t step) {
  adam_factors result = detail::factors_of_adam(rule, learning_rate, step);
  result.keep = static_cast<float>(1 - learning_rate * rule.weight_decay);
  return result;
}

}  // namespace kd::inline KD_ABI::optim
