/// The square root at compile time, which <cmath> gives only from C++26 on.
#pragma once

#include "kd/core/abi.hpp"

namespace kd::inline KD_ABI {

/// Newton's iteration to the last bit or its neighbour; x must be positive and finite.
constexpr double square_root(double x) {
  double root = x < 1 ? 1 : x;
  for (int i = 0; i < 200; ++i) {
    const double next = 0.5 * (root + x / root);
    if (next == root) break;
    root = next;
  }
  return root;
}

}  // namespace kd::inline KD_ABI
