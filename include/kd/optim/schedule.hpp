/// Learning rates as pure functions of the position in the training, with PyTorch 2's formulas.
#pragma once

#include <cmath>
#include <cstddef>
#include <numbers>
#include <string_view>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"

namespace kd::inline KD_ABI::optim {

/// The rate itself, at every position.
constexpr double constant_rate(double base) { return base; }

/// base * gamma^floor(position / size): torch's StepLR.
inline double step_rate(double base, double position, double size, double gamma) {
  return base * std::pow(gamma, std::floor(position / size));
}

/// Half a cosine from base at 0 to lowest at `period`: torch's CosineAnnealingLR in closed form. Loshchilov, Hutter:
/// SGDR. ICLR 2017, equation 5. Beyond the period the cosine goes on, as in torch.
inline double cosine_rate(double base, double position, double period, double lowest) {
  return lowest + (base - lowest) * (1 + std::cos(std::numbers::pi * position / period)) / 2;
}

/// Up from highest / divisor to highest over the first `rise` of the steps, then down to highest / divisor /
/// final_divisor at the last one, both along half a cosine: torch's OneCycleLR with its defaults. The momentum, which
/// torch cycles as well (cycle_momentum), stays as it is. Smith, Topin: Super-convergence. 2019.
inline double one_cycle_rate(double highest, double step, double steps, double rise = 0.3, double divisor = 25,
                             double final_divisor = 1e4) {
  const double first = highest / divisor, last = first / final_divisor;
  const double top = rise * steps - 1, end = steps - 1;
  const bool rising = step <= top;
  const double from = rising ? first : highest, to = rising ? highest : last;
  const double part = !rising ? (step - top) / (end - top) : top > 0 ? step / top : 1;
  return to + (from - to) / 2 * (1 + std::cos(std::numbers::pi * part));
}

/// A schedule that a training loop can hold: options of every kind, and the kind that says which of them count.
struct schedule {
  enum class kind { constant, step, cosine, one_cycle };

  kind shape = kind::constant;
  double size = 30, gamma = 0.1;                                    ///< step: epochs per stair, factor of each stair
  double period = 0, lowest = 0;                                    ///< cosine: epochs down to the lowest rate
  double steps = 0, rise = 0.3, divisor = 25, final_divisor = 1e4;  ///< one_cycle: optimiser steps of the training

  static constexpr schedule constant() { return {}; }
  static constexpr schedule step(double size, double gamma = 0.1) {
    return {.shape = kind::step, .size = size, .gamma = gamma};
  }
  static constexpr schedule cosine(double period, double lowest = 0) {
    return {.shape = kind::cosine, .period = period, .lowest = lowest};
  }
  static constexpr schedule one_cycle(double steps) { return {.shape = kind::one_cycle, .steps = steps}; }

  /// Whether the position is the number of optimiser steps done, from 0; otherwise it is that of epochs done.
  constexpr bool counts_steps() const { return shape == kind::one_cycle; }

  /// The rate at a position, from 0; `base` is the optimiser's learning rate, for one_cycle the highest rate. Throws
  /// argument_error on a position that is negative, NaN or, for one_cycle, not below `steps`.
  double rate(double base, double position) const;

  /// Throws argument_error on an option that this kind uses and that is NaN or out of range.
  void validate() const;

  /// The same, and where a training of `epochs` epochs of `steps_per_epoch` would go past the end of one_cycle, which
  /// has no rate there. The other kinds go on for ever: after its period, the cosine rises again, as in torch.
  void validate(std::size_t epochs, std::size_t steps_per_epoch) const;
};

inline double schedule::rate(double base, double position) const {
  if (!(position >= 0) || (shape == kind::one_cycle && !(position < steps)))
    reject_argument("kd::optim::schedule::rate",
                    shape == kind::one_cycle ? text("the position must be in [0, ", steps, ")")
                                             : text("the position must be at least 0"),
                    position, "set the schedule's length to that of the training");
  switch (shape) {
    case kind::constant:
      return constant_rate(base);
    case kind::step:
      return step_rate(base, position, size, gamma);
    case kind::cosine:
      return cosine_rate(base, position, period, lowest);
    case kind::one_cycle:
      return one_cycle_rate(base, position, steps, rise, divisor, final_divisor);
  }
  reject_argument("kd::optim::schedule::rate", "the shape must be one of the enumeration", static_cast<int>(shape),
                  "use schedule::constant, step, cosine or one_cycle");
}

inline void schedule::validate() const {
  const auto require = [](bool holds, std::string_view rule, double value, std::string_view remedy) {
    if (!holds) reject_argument("kd::optim::schedule", rule, value, remedy);
  };
  const auto positive = [](double x) { return x > 0 && std::isfinite(x); };
  switch (shape) {
    case kind::constant:
      return;
    case kind::step:
      require(positive(size), "step size must be finite and above 0 epochs", size, "30 is usual");
      require(positive(gamma), "gamma must be finite and above 0", gamma, "0.1 is usual");
      return;
    case kind::cosine:
      require(positive(period), "the cosine's period must be finite and above 0 epochs", period,
              "set it to the number of epochs");
      require(lowest >= 0 && std::isfinite(lowest), "the lowest rate must be finite and at least 0", lowest,
              "0 is usual");
      return;
    case kind::one_cycle:
      require(positive(steps), "one_cycle needs a finite number of steps above 0", steps,
              "set it to epochs times batches per epoch");
      require(rise > 0 && rise < 1, "rise must be in (0, 1)", rise, "0.3 is usual");
      require(positive(divisor), "divisor must be finite and above 0", divisor, "25 is usual");
      require(positive(final_divisor), "final_divisor must be finite and above 0", final_divisor, "10000 is usual");
      return;
  }
  reject_argument("kd::optim::schedule", "the shape must be one of the enumeration", static_cast<int>(shape),
                  "use schedule::constant, step, cosine or one_cycle");
}

inline void schedule::validate(std::size_t epochs, std::size_t steps_per_epoch) const {
  validate();
  if (shape != kind::one_cycle) return;
  const double training = static_cast<double>(epochs) * static_cast<double>(steps_per_epoch);
  if (training > steps)
    reject_argument("kd::optim::schedule",
                    text("one_cycle must reach over ", epochs, " epochs of ", steps_per_epoch, " steps"), steps,
                    text("pass schedule::one_cycle(", training, "), or train for fewer epochs"));
}

}  // namespace kd::inline KD_ABI::optim
