/// Options of a loss that change over the epochs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "kd/core/error.hpp"
#include "kd/loss/each_option.hpp"

namespace kd::inline KD_ABI::train {

/// An option of the loss that rises or falls to the value that it was given: in epoch e = 1, 2, ... it is
/// from + (value - from) * min(e / epochs, 1). {.option = "kd_weight", .from = 0, .epochs = 20} is the warm-up of
/// decoupled knowledge distillation (Zhao, Cui, Song, Qiu, Liang, arXiv:2203.08679, and the authors' code).
struct ramp {
  std::string option;  // "temperature", "kd_weight", "divergence.beta": kd::each_option names them
  double from = 0;
  std::size_t epochs = 1;
};

namespace detail {

template <class Loss>
void set_option(Loss& loss, const std::string& name, double fraction, double from) {
  each_option(loss, [&]<class Value>(const std::string& own, Value& value, const auto&) {
    if constexpr (!std::is_same_v<Value, bool>)
      if (own == name) value = static_cast<Value>(from + (static_cast<double>(value) - from) * fraction);
  });
}

}  // namespace detail

/// The loss as it is in an epoch, of which 0 is the first.
template <class Loss>
Loss with_ramps(Loss loss, std::span<const ramp> ramps, std::size_t epoch) {
  for (const ramp& one : ramps)
    if (epoch + 1 < one.epochs)
      detail::set_option(loss, one.option, static_cast<double>(epoch + 1) / static_cast<double>(one.epochs), one.from);
  return loss;
}

/// Throws argument_error for a ramp of an option that the loss has not or that is a switch, of one that has another,
/// over 0 epochs, or from a value that the loss does not allow.
template <class Loss>
void require_ramps(const Loss& loss, std::span<const ramp> ramps) {
  constexpr std::string_view me = "kd::train::ramp";
  std::string names;
  each_option(loss, [&]<class Value>(const std::string& name, const Value&, const auto&) {
    if constexpr (!std::is_same_v<Value, bool>) names += text(names.empty() ? "" : ", ", name);
  });
  for (const ramp& one : ramps) {
    bool known = false;
    each_option(loss, [&]<class Value>(const std::string& name, const Value&, const auto&) {
      known = known || (!std::is_same_v<Value, bool> && name == one.option);
    });
    if (!known)
      reject_argument(me, text("option must be a number of the loss ", loss.name, " (", names, ")"), one.option,
                      "name one of them");
    if (std::ranges::count(ramps, one.option, &ramp::option) > 1)
      reject_argument(me, "an option has one ramp", text("two of ", one.option), "leave one away");
    if (one.epochs == 0) reject_argument(me, "epochs must be at least 1", one.epochs, "leave the ramp away");
    Loss first = loss;
    detail::set_option(first, one.option, 0, one.from);
    first.validate();
  }
}

/// "kd_weight from 0 over 20 epochs".
inline std::string text_of(const ramp& r) { return text(r.option, " from ", r.from, " over ", r.epochs, " epochs"); }

}  // namespace kd::inline KD_ABI::train
