/// Products of sizes that people pass: one that wrapped would be a small number, and the memory too small.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"

namespace kd::inline KD_ABI {

/// The product of the factors; throws argument_error, in the name of `function`, where it passes the largest size of an
/// object, 2^63 - 1 on 64-bit systems. Bytes are checked by giving sizeof as a factor.
constexpr std::size_t product_of(std::string_view function, std::initializer_list<std::size_t> factors,
                                 std::string_view remedy) {
  constexpr auto largest = static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max());
  for (const std::size_t factor : factors)
    if (factor == 0) return 0;
  std::size_t product = 1;
  for (const std::size_t factor : factors) {
    if (factor > largest / product) {
      std::string received;
      for (const std::size_t one : factors) received += text(received.empty() ? "" : " * ", one);
      reject_argument(function, text("sizes must multiply to at most ", largest), received, remedy);
    }
    product *= factor;
  }
  return product;
}

}  // namespace kd::inline KD_ABI
