/// Stochastic gradient descent with momentum as PyTorch 2 computes it (torch.optim.SGD; no maximize).
/// Sutskever, Martens, Dahl, Hinton: On the importance of initialization and momentum. ICML 2013.
#pragma once

#include <cstdint>

#include "kd/formula/option.hpp"
#include "kd/formula/rule.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// What one step of SGD needs; see sgd::step.
struct sgd_factors {
  float l2, carry, take, own, through, rate;
};

/// SGD: g += weight_decay * w; b = momentum * b + (1 - dampening) * g, where the first step sets b = g;
/// w -= learning_rate * (nesterov ? g + momentum * b : b). Without momentum w -= learning_rate * g.
struct sgd {
  double learning_rate = 1e-3;
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;

  static constexpr const char* name = "sgd";
  static constexpr int states = 1;  ///< the momentum buffer, not touched where momentum is 0
  static constexpr void options(auto&& each) {
    each(option{"learning_rate", &sgd::learning_rate, 0, unbounded, "0.1 is usual"});
    each(option{"momentum", &sgd::momentum, 0, unbounded, "0.9 is usual, 0 turns it off"});
    each(option{"dampening", &sgd::dampening, -unbounded, unbounded, "0 is usual"});
    each(option{"weight_decay", &sgd::weight_decay, 0, unbounded, "0 turns it off"});
    each(option{"nesterov", &sgd::nesterov, "looks one step ahead"});
  }
  constexpr const char* conflict() const {
    if (nesterov && !(momentum > 0)) return "nesterov needs momentum above 0: set it, to 0.9 for example";
    if (nesterov && dampening != 0) return "nesterov needs dampening 0: leave dampening out";
    return nullptr;
  }
  constexpr bool keeps_weights_without_gradient() const { return weight_decay == 0; }
  constexpr bool uses_states() const { return momentum != 0; }

  sgd_factors factors(double rate, std::uint64_t step) const {
    const auto carried = static_cast<float>(momentum);
    const bool first = step == 1;
    return {
        static_cast<float>(weight_decay), first ? 0.0f : carried,    first ? 1.0f : static_cast<float>(1 - dampening),
        nesterov ? 1.0f : 0.0f,           nesterov ? carried : 1.0f, static_cast<float>(rate)};
  }

  template <class Math, class Real>
  KD_FORMULA static void step(Real& w, Real g, Real* state, const sgd_factors& f) {
    g = Math::fma(f.l2, w, g);
    if (state != nullptr) {
      Real& b = *state;
      b = Math::fma2(f.carry, b, f.take, g);
      g = Math::fma2(f.own, g, f.through, b);
    }
    w = Math::fma(-f.rate, g, w);
  }
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
