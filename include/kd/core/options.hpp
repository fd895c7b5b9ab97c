/// Options that a type has declared (kd/formula/option.hpp), checked on the host.
#pragma once

#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>

#include "kd/core/error.hpp"
#include "kd/formula/option.hpp"

namespace kd::inline KD_ABI {

namespace detail {

struct any_option {
  constexpr void operator()(const auto&) const {}
};
template <class Object>
inline constexpr bool declares_options = requires {
  Object::options(any_option{});
};

// A function, since nvcc 13 does not evaluate a lambda in a concept.
template <class Object>
constexpr bool declares_options_of_its_own() {
  bool own = declares_options<Object>;
  if constexpr (declares_options<Object>)
    Object::options([&own]<class Owner, class Value>(const formula::option<Owner, Value>&) {
      own = own && std::is_same_v<Owner, Object>;
    });
  return own;
}

}  // namespace detail

/// Whether a type declares options of its own: a type derived from one that does is another, with nothing declared.
template <class Object>
concept has_options = detail::declares_options_of_its_own<Object>();

/// Whether the declared options fill the object, up to padding at its end: no member was forgotten.
template <has_options Object>
constexpr bool every_member_is_an_option() {
  std::size_t bytes = 0;
  Object::options([&bytes]<class Owner, class Value>(const formula::option<Owner, Value>&) { bytes += sizeof(Value); });
  return bytes <= sizeof(Object) && sizeof(Object) - bytes < alignof(Object);
}

namespace detail {

/// "beta1 must be a number in [0,1)".
template <class Owner, class Value>
std::string limits_of(const formula::option<Owner, Value>& option) {
  const auto least = static_cast<Value>(option.least), most = static_cast<Value>(option.most);
  if (std::isfinite(least) && std::isfinite(most))
    return text(option.name, " must be a number in [", least, ",", most, option.most_allowed ? ']' : ')');
  std::string rule = text(option.name, " must be finite");
  if (std::isfinite(least)) rule += least == 0 ? " and not negative" : text(" and at least ", least);
  if (std::isfinite(most)) rule += text(" and ", option.most_allowed ? "at most " : "below ", most);
  return rule;
}

template <class Owner, class Value>
bool within_limits(const formula::option<Owner, Value>& option, Value value) {
  if constexpr (std::is_same_v<Value, bool>) {
    return true;
  } else {
    const auto least = static_cast<Value>(option.least), most = static_cast<Value>(option.most);
    return std::isfinite(value) && value >= least && (option.most_allowed ? value <= most : value < most);
  }
}

}  // namespace detail

/// Throws argument_error where an option is a NaN, infinite or outside of its limits, and where two are in conflict:
/// "kd::optim::adam: beta1 must be a number in [0,1), received 2; 0.9 is usual". A type without options is right.
/// @param where the name that programs know the object by
template <class Object>
void validate_options(std::string_view where, const Object& object) {
  if constexpr (has_options<Object>) {
    Object::options([&](const auto& option) {
      const auto value = object.*option.member;
      if (!detail::within_limits(option, value)) reject_argument(where, detail::limits_of(option), value, option.usual);
    });
    if constexpr (requires { object.conflict(); }) {
      const char* const conflict = object.conflict();
      if (conflict == nullptr) return;
      std::string received;
      Object::options([&](const auto& option) {
        received += text(received.empty() ? "" : ", ", option.name, " ", object.*option.member);
      });
      throw argument_error(text(where, ": ", conflict, "; received ", received));
    }
  } else {
    static_assert(
        !requires { Object::options(detail::any_option{}); },
        "kd::validate_options: these options are those of the base: a derived type must declare its own");
  }
}

}  // namespace kd::inline KD_ABI
