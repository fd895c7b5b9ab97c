/// Stochastic gradient descent with momentum as PyTorch 2 computes it (torch.optim.SGD; no maximize).
/// Sutskever, Martens, Dahl, Hinton: On the importance of initialization and momentum. ICML 2013.
#pragma once

#include <cmath>
#include <cstdint>
#include <string_view>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"

namespace kd::inline KD_ABI::optim {

/// SGD: g += weight_decay * w; b = momentum * b + (1 - dampening) * g, where the first step sets b = g;
/// w -= learning_rate * (nesterov ? g + momentum * b : b). Without momentum w -= learning_rate * g.
struct sgd {
  double learning_rate = 1e-3;
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;

  static constexpr std::string_view name = "sgd";
  static constexpr int states =
      1;  ///< floats per weight: the momentum buffer, zero before the first step, not touched where momentum is 0

  /// Throws argument_error on a NaN, infinite or negative option (dampening alone may be negative), and on nesterov
  /// without momentum or with dampening.
  void validate() const;
  /// Whether a weight whose gradient has been zero from the first step on never moves, so that it may be skipped.
  constexpr bool keeps_weights_without_gradient() const { return weight_decay == 0; }
};

/// What one SGD step needs: g += l2 * w; b = carry * b + take * g; w -= rate * (own * g + through * b).
struct sgd_factors {
  float l2, carry, take, own, through, rate;
  bool buffered;  // whether the momentum buffer exists
};

/// Factors of step `step` (the first is 1) at this learning rate, which may come from a schedule.
inline sgd_factors factors(const sgd& rule, double learning_rate, std::uint64_t step) {
  const auto momentum = static_cast<float>(rule.momentum);
  const bool first = step == 1;
  return {static_cast<float>(rule.weight_decay),
          first ? 0.0f : momentum,
          first ? 1.0f : static_cast<float>(1 - rule.dampening),
          rule.nesterov ? 1.0f : 0.0f,
          rule.nesterov ? momentum : 1.0f,
          static_cast<float>(learning_rate),
          rule.momentum != 0};
}

inline void sgd::validate() const {
  constexpr std::string_view here = "kd::optim::sgd";
  const auto require = [&](bool holds, std::string_view rule, double value, std::string_view remedy) {
    if (!holds) reject_argument(here, rule, value, remedy);
  };
  const auto not_negative = [](double x) { return x >= 0 && std::isfinite(x); };
  require(not_negative(learning_rate), "learning_rate must be finite and at least 0", learning_rate, "0.1 is usual");
  require(not_negative(momentum), "momentum must be finite and at least 0", momentum, "0.9 is usual, 0 turns it off");
  require(std::isfinite(dampening), "dampening must be finite", dampening, "0 is usual");
  require(not_negative(weight_decay), "weight_decay must be finite and at least 0", weight_decay, "0 turns it off");
  require(!nesterov || momentum > 0, "nesterov needs momentum above 0", momentum, "set momentum, to 0.9 for example");
  require(!nesterov || dampening == 0, "nesterov needs dampening 0", dampening, "leave dampening out");
}

}  // namespace kd::inline KD_ABI::optim
