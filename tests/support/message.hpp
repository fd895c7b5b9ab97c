/// The message of the exception that a call must throw.
#pragma once

#include <string>

#include "kd/core/error.hpp"

namespace kd_test {

inline constexpr const char* nothing_thrown = "nothing was thrown";

/// The message of an `Exception` thrown by `call`, nothing_thrown where it returns. Others pass through.
template <class Exception = kd::error, class Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const Exception& e) {
    return e.what();
  }
  return nothing_thrown;
}

/// Whether every part stands in the text.
template <class... Parts>
bool holds(const std::string& text, const Parts&... parts) {
  return (... && (text.find(parts) != std::string::npos));
}

}  // namespace kd_test
