/// Options of losses and optimisers, declared once: the checks, their messages, the recipe of a run, results and
/// command-line flags all walk over the same declaration.
///
/// A type with options is an aggregate of floats, doubles and bools with default values, and
///   static constexpr void options(auto&& each) {
///     each(option{"beta", &mine::beta, 0, 1, "0.5 is usual"});
///     ...
///   }
/// calls `each` once for every option, in the order in which they are shown. Rules between options go into
///   constexpr const char* conflict() const   "nesterov needs momentum above 0", or null where all is well
/// Nothing here runs on a device: there the aggregate itself lies in memory, member by member.
#pragma once

#include <type_traits>

namespace kd::formula {

template <class Owner, class Value>
struct option {
  static_assert(std::is_same_v<Value, float> || std::is_same_v<Value, double> || std::is_same_v<Value, bool>,
                "kd::formula::option: an option must be a float, a double or a bool");
  using value_type = Value;

  const char* name;  // as the member; as a flag with - for _
  Value Owner::*member;
  double least, most;  // both are allowed; 0 and 1 for a bool
  const char* usual;   // "0.9 is usual": what an error message and --help add

  constexpr option(const char* name_, Value Owner::*member_, double least_, double most_, const char* usual_)
      : name(name_), member(member_), least(least_), most(most_), usual(usual_) {}
  /// A switch.
  constexpr option(const char* name_, Value Owner::*member_, const char* usual_)
      : option(name_, member_, 0, 1, usual_) {
    static_assert(std::is_same_v<Value, bool>, "kd::formula::option: a number needs its limits");
  }
};

}  // namespace kd::formula
