/// Lion: every weight moves by the learning rate, or not at all.
/// Chen et al.: Symbolic discovery of optimization algorithms, arXiv:2302.06675, program 1.
#pragma once

#include <cstdint>

#include "kd/formula/option.hpp"
#include "kd/formula/rule.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// What one step of Lion needs; see lion::step.
struct lion_factors {
  float keep, rate, beta1, take1, beta2, take2;
};

/// Lion: w -= learning_rate * (sign(beta1 * m + (1 - beta1) * g) + weight_decay * w), where sign(0) = 0; then
/// m = beta2 * m + (1 - beta2) * g. The learning rate is usually 3 to 10 times smaller than AdamW's, and weight_decay
/// as many times larger (section 5).
struct lion {
  double learning_rate = 1e-4;
  double beta1 = 0.9, beta2 = 0.99;
  double weight_decay = 0;

  static constexpr const char* name = "lion";
  static constexpr int states = 1;  ///< the momentum
  static constexpr void options(auto&& each) {
    each(option{"learning_rate", &lion::learning_rate, 0, unbounded, "0.0001 is usual"});
    each(option{"beta1", &lion::beta1, 0, below{1}, "0.9 is usual"});
    each(option{"beta2", &lion::beta2, 0, below{1}, "0.99 is usual"});
    each(option{"weight_decay", &lion::weight_decay, 0, unbounded, "0 turns it off"});
  }
  constexpr bool keeps_weights_without_gradient() const { return weight_decay == 0; }

  lion_factors factors(double rate, std::uint64_t /*step*/) const {
    return {static_cast<float>(1 - rate * weight_decay),
            static_cast<float>(rate),
            static_cast<float>(beta1),
            static_cast<float>(1 - beta1),
            static_cast<float>(beta2),
            static_cast<float>(1 - beta2)};
  }

  template <class Math, class Real>
  KD_FORMULA static void step(Real& w, Real g, Real* state, const lion_factors& f) {
    Real& m = *state;
    w = Math::fma(f.keep, w, -f.rate * Math::sign(Math::fma2(f.beta1, m, f.take1, g)));
    m = Math::fma2(f.beta2, m, f.take2, g);
  }
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
