/// Options of losses and optimisers, declared once: the checks, their messages, the recipe of a run, results and
/// command-line flags all walk over the same declaration.
///
/// A type with options is an aggregate of floats, doubles and bools with default values, and
///   static constexpr void options(auto&& each) {
///     each(option{"beta", &mine::beta, 0, 1, "0.5 is usual"});             // 0 <= beta <= 1
///     each(option{"decay", &mine::decay, 0, below{1}, "0.9 is usual"});    // 0 <= decay < 1
///     each(option{"rate", &mine::rate, 0, unbounded, "0.001 is usual"});   // 0 <= rate < infinity
///     ...
///   }
/// calls `each` once for every option, in the order in which they are shown. Rules between options go into
///   constexpr const char* conflict() const   "nesterov needs momentum above 0", or null where all is well
/// Nothing here runs on a device: there the aggregate itself lies in memory, member by member.
#pragma once

#include <type_traits>

#include "kd/formula/abi.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// As a limit: any finite number, `-unbounded` as the lower one.
inline constexpr double unbounded = __builtin_huge_val();

/// As the upper limit: one that is not allowed itself.
struct below {
  double limit;
};

template <class Owner, class Value>
struct option {
  static_assert(std::is_same_v<Value, float> || std::is_same_v<Value, double> || std::is_same_v<Value, bool>,
                "kd::formula::option: an option must be a float, a double or a bool");
  using value_type = Value;
  using member_pointer = Value Owner::*;

  const char* name;  // as the member; as a flag with - for _
  member_pointer member;
  double least, most;  // 0 and 1 for a bool
  bool most_allowed;   // `least` always is, where it is finite
  const char* usual;   // "0.9 is usual": what an error message and --help add
  bool newer = false;  // see added_later

  constexpr option(const char* name_, member_pointer member_, double least_, double most_, const char* usual_)
      : name(name_), member(member_), least(least_), most(most_), most_allowed(true), usual(usual_) {}
  constexpr option(const char* name_, member_pointer member_, double least_, below most_, const char* usual_)
      : name(name_), member(member_), least(least_), most(most_.limit), most_allowed(false), usual(usual_) {}
  /// A switch.
  constexpr option(const char* name_, member_pointer member_, const char* usual_)
      : option(name_, member_, 0, 1, usual_) {
    static_assert(std::is_same_v<Value, bool>, "kd::formula::option: a number needs its limits");
  }

  /// For an option that an existing type got: at its default it stays out of recipes, so that a run that was begun
  /// before there was the option goes on.
  constexpr option added_later() const {
    option o = *this;
    o.newer = true;
    return o;
  }
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
