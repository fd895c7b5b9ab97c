/// Comparators that fail on NaN: every test is written as !(error <= tolerance).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

namespace kd_test {

/// Largest |got - want| / max(scale, 1e-30), where scale is the largest |want|; infinity when a NaN or a size mismatch
/// is met.
template <class Got, class Want>
double relative_error(const Got& got, const Want& want) {
  const double infinite = std::numeric_limits<double>::infinity();
  if (std::size(got) != std::size(want)) return infinite;
  double scale = 0, worst = 0;
  for (const auto& w : want) scale = std::max(scale, std::abs(static_cast<double>(w)));
  for (std::size_t i = 0; i < std::size(got); ++i) {
    const double difference = std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
    if (!(difference <= std::numeric_limits<double>::max())) return infinite;
    worst = std::max(worst, difference);
  }
  return worst / std::max(scale, 1e-30);
}

/// Whether got is within `tolerance` of want, absolutely or relative to |want|; false on NaN.
inline bool close(double got, double want, double tolerance) {
  return std::abs(got - want) <= tolerance * std::max(1.0, std::abs(want));
}

}  // namespace kd_test
