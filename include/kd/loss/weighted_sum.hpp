/// Any weighted sum of the terms of kernels/kd/formula, computed in one launch.
#pragma once

#include <cstddef>
#include <tuple>
#include <utility>

#include "kd/core/abi.hpp"
#include "kd/core/options.hpp"
#include "kd/formula/logit_loss.hpp"
#include "kd/formula/option.hpp"
#include "kd/loss/teacher_temperature.hpp"

namespace kd::inline KD_ABI {

/// A term of a sum and what it is multiplied by.
template <class Term>
struct weighted_term {
  float weight = 1;
  Term term = {};

  static constexpr void options(auto&& each) {
    each(formula::option{"weight", &weighted_term::weight, 0, formula::unbounded, "0 turns the term off"});
  }
};
template <class Term>
weighted_term(float, Term) -> weighted_term<Term>;

/// At which temperatures the softened terms of a sum are taken; see distillation_with.
struct softening {
  float temperature = 1.0f;
  float teacher_temperature = 0.0f;  ///< 0: the student's
  bool times_temperature_squared = true;

  static constexpr void options(auto&& each) {
    using formula::option;
    each(option{"temperature", &softening::temperature, 1e-4f, 1e4f, "common values are 1 to 10"});
    each(option{"teacher_temperature", &softening::teacher_temperature, 0, 1e4f, "0 is the student's"});
    each(option{"times_temperature_squared", &softening::times_temperature_squared, "true is Hinton's convention"});
  }
};

/// w_1 L_1 + w_2 L_2 + ..., mean over the rows, of terms that share their temperatures:
///
///   kd::weighted_sum{kd::softening{.temperature = 2}, kd::weighted_term{0.5f, kd::formula::reverse_kl{}},
///                    kd::weighted_term{0.5f, kd::formula::cross_entropy{}}}
///
/// A term that sets the label apart (dkd), or that standardises, shares a sum with no other softened term.
template <class... Terms>
struct weighted_sum {
  softening soft;
  std::tuple<weighted_term<Terms>...> terms;

  constexpr explicit weighted_sum(const softening& at, const weighted_term<Terms>&... parts)
      : soft(at), terms(parts...) {}

  static constexpr const char* name = "weighted_sum";
  static constexpr bool needs_teacher = formula::logit_loss<Terms...>::needs_teacher;

  /// Throws argument_error for an option outside of its limits.
  void validate() const {
    validate_options(name, soft);
    std::apply([](const auto&... part) { ((validate_options(name, part), validate_options(name, part.term)), ...); },
               terms);
    require_teacher_temperature<Terms...>(name, soft.temperature, soft.teacher_temperature);
  }
  /// What the engines compute.
  constexpr auto formula() const {
    return std::apply(
        [&](const auto&... part) {
          return formula::logit_loss{soft.temperature,
                                     soft.teacher_temperature == 0 ? soft.temperature : soft.teacher_temperature,
                                     soft.times_temperature_squared, formula::weighted{part.weight, part.term}...};
        },
        terms);
  }
  /// The same terms with their default options.
  static constexpr weighted_sum defaults() { return weighted_sum(softening{}, weighted_term<Terms>{}...); }
  /// See each_option: the names are "temperature", "0.weight", "0.beta", "1.weight".
  constexpr void each_part(const auto& visit) { parts_of(*this, visit); }
  constexpr void each_part(const auto& visit) const { parts_of(*this, visit); }

 private:
  template <class Self>
  static constexpr void parts_of(Self& self, const auto& visit) {
    visit("", self.soft);
    std::size_t i = 0;
    std::apply(
        [&](auto&... part) {
          const auto both = [&](auto& one) {
            const char prefix[] = {static_cast<char>('0' + i++), '.', '\0'};  // a loss reports at most 8 values
            visit(prefix, one);
            visit(prefix, one.term);
          };
          (both(part), ...);
        },
        self.terms);
  }
};
template <class... Terms>
weighted_sum(softening, weighted_term<Terms>...) -> weighted_sum<Terms...>;

}  // namespace kd::inline KD_ABI
