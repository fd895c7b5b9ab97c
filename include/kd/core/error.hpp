/// Errors of kd: every message says which function or file, what was expected, what came and what to do.
#pragma once

#include <charconv>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

#include "kd/core/abi.hpp"

namespace kd::inline KD_ABI {

/// Base of every exception that kd throws.
struct error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// An argument breaks the function's rule (temperature 0, zero threads, a label out of range).
struct argument_error : error {
  using error::error;
};
/// A file is missing, cut, corrupt, of another network, or cannot be written.
struct file_error : error {
  using error::error;
};
/// A NaN, or an infinity where none is allowed, in logits or loss; training stops before it can spread.
struct non_finite_error : error {
  using error::error;
};
/// A device cannot be used, or a call to its driver or libraries failed.
struct device_error : error {
  using error::error;
};

namespace detail {

inline void append(std::string& out, std::string_view part) { out += part; }
inline void append(std::string& out, char part) { out += part; }
template <class Number>
requires std::is_arithmetic_v<Number>
void append(std::string& out, Number part) {
  if constexpr (std::is_same_v<Number, bool>) {
    out += part ? "true" : "false";
  } else {
    char digits[64];
    const auto end = std::to_chars(digits, digits + sizeof digits, part).ptr;
    out.append(digits, static_cast<std::size_t>(end - digits));
  }
}

}  // namespace detail

/// The parts one after another: text, characters and numbers (shortest form that reads back to the same value).
template <class... Parts>
std::string text(const Parts&... parts) {
  std::string out;
  (detail::append(out, parts), ...);
  return out;
}

/// Throws argument_error: "FUNCTION: RULE, received VALUE; REMEDY".
template <class Value>
[[noreturn]] void reject_argument(std::string_view function, std::string_view rule, const Value& received,
                                  std::string_view remedy) {
  throw argument_error(text(function, ": ", rule, ", received ", received, "; ", remedy));
}

}  // namespace kd::inline KD_ABI
