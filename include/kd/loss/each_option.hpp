/// The options of a loss by name, for recipes, schedules and command lines.
#pragma once

#include <string>
#include <type_traits>

#include "kd/core/abi.hpp"
#include "kd/formula/option.hpp"

namespace kd::inline KD_ABI {

namespace detail {

template <class Owner, class Visit>
constexpr void each_option_of(Owner& owner, const char* prefix, const Visit& visit) {
  using plain = std::remove_const_t<Owner>;
  if constexpr (requires { plain::options([](auto&&) {}); })
    plain::options([&]<class Declared, class Value>(const formula::option<Declared, Value>& option) {
      static_assert(
          std::is_same_v<Declared, plain>,
          "kd::each_option: a type must declare its options itself: those of its base would describe another");
      visit(prefix + std::string(option.name), owner.*option.member, option);
    });
}

}  // namespace detail

/// Calls visit(name, value, option) for every option of a loss, and for those of what it is made of, if it says so by
///   void each_part(const auto& visit) const   calls visit("divergence.", part): "divergence.beta" is a name then
/// and by the same that is not const.
/// `value` is a reference into `loss`, `option` the formula::option.
template <class Loss, class Visit>
void each_option(Loss& loss, const Visit& visit) {
  const auto visit_part = [&](const char* prefix, auto& part) { detail::each_option_of(part, prefix, visit); };
  visit_part("", loss);
  if constexpr (requires { loss.each_part(visit_part); }) loss.each_part(visit_part);
}

}  // namespace kd::inline KD_ABI
