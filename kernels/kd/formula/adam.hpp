/// Adam and AdamW as PyTorch 2 computes them (torch.optim.Adam, torch.optim.AdamW; no amsgrad, no maximize).
/// Kingma, Ba: Adam. ICLR 2015, algorithm 1. Loshchilov, Hutter: Decoupled weight decay. ICLR 2019, algorithm 2.
#pragma once

#include <cmath>
#include <cstdint>

#include "kd/formula/option.hpp"
#include "kd/formula/rule.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// What one step of Adam or AdamW needs, rounded once, as PyTorch does; see adam::step.
struct adam_factors {
  float l2, keep, rate1, beta2, rate2, rate, root, epsilon;
};

template <class Rule>
constexpr void adam_options(auto&& each) {
  each(option{"learning_rate", &Rule::learning_rate, 0, unbounded, "0.001 is usual"});
  each(option{"beta1", &Rule::beta1, 0, below{1}, "0.9 is usual"});
  each(option{"beta2", &Rule::beta2, 0, below{1}, "0.999 is usual"});
  each(option{"epsilon", &Rule::epsilon, 0, unbounded, "1e-8 is usual"});
  each(option{"weight_decay", &Rule::weight_decay, 0, unbounded, "0 turns it off"});
}

/// Adam; weight_decay is the L2 term, added to the gradient.
struct adam {
  double learning_rate = 1e-3;
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;

  static constexpr const char* name = "adam";
  static constexpr int states = 2;  ///< first and second moment
  static constexpr void options(auto&& each) { adam_options<adam>(each); }
  constexpr bool keeps_weights_without_gradient() const { return weight_decay == 0 && epsilon > 0; }

  adam_factors factors(double rate, std::uint64_t step) const {
    const auto number = static_cast<double>(step);
    const double correction1 = 1 - std::pow(beta1, number), correction2 = 1 - std::pow(beta2, number);
    return {static_cast<float>(weight_decay),
            1.0f,
            static_cast<float>(1 - beta1),
            static_cast<float>(beta2),
            static_cast<float>(1 - beta2),
            static_cast<float>(rate / correction1),
            static_cast<float>(1 / std::sqrt(correction2)),
            static_cast<float>(epsilon)};
  }

  template <class Math, class Real>
  KD_FORMULA static void step(Real& w, Real g, Real* state, const adam_factors& f) {
    Real &m = state[0], &v = state[1];
    g = Math::fma(f.l2, w, g);
    m = Math::fma(f.rate1, g - m, m);
    v = Math::fma2(f.beta2, v, f.rate2 * g, g);
    w = Math::fma(f.keep, w, -(f.rate * m / Math::fma(f.root, Math::sqrt(v), f.epsilon)));
  }
};

/// AdamW; weight_decay shrinks the weights apart from the gradient: w -= learning_rate * weight_decay * w.
struct adamw {
  double learning_rate = 1e-3;
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 1e-2;

  static constexpr const char* name = "adamw";
  static constexpr int states = adam::states;
  static constexpr void options(auto&& each) { adam_options<adamw>(each); }
  constexpr bool keeps_weights_without_gradient() const { return weight_decay == 0 && epsilon > 0; }

  adam_factors factors(double rate, std::uint64_t step) const {
    adam_factors f = adam{.beta1 = beta1, .beta2 = beta2, .epsilon = epsilon}.factors(rate, step);
    f.keep = static_cast<float>(1 - rate * weight_decay);
    return f;
  }

  template <class Math, class Real>
  KD_FORMULA static void step(Real& w, Real g, Real* state, const adam_factors& f) {
    adam::step<Math>(w, g, state, f);
  }
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
