/// Numbers for tests of either device: functions of index and draw, the same everywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kd/core/random.hpp"

namespace kd_test {

/// Numbers in [-1, 1), a function of index and `draw`.
inline std::vector<float> random_floats(std::size_t n, std::uint32_t draw) {
  std::vector<float> v(n);
  for (std::size_t i = 0; i < n; ++i) {
    const auto words = kd::random_at(17, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i), draw);
    v[i] = 2.0f * kd::uniform(words[0]) - 1.0f;
  }
  return v;
}
/// Roughly normal: sums of twelve uniforms.
inline std::vector<float> normal_values(std::size_t n, std::uint32_t draw, double mean = 0, double deviation = 1) {
  std::vector<float> v(n);
  for (std::size_t i = 0; i < n; ++i) {
    double sum = -6;
    for (std::uint32_t k = 0; k < 3; ++k)
      for (const auto word :
           kd::random_at(9, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i), draw, k))
        sum += static_cast<double>(kd::uniform(word));
    v[i] = static_cast<float>(mean + deviation * sum);
  }
  return v;
}

}  // namespace kd_test
