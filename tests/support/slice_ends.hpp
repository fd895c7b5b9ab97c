/// How tests of split vocabularies cut them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace kd_test {

/// Ends of slices of `classes` classes, uneven, of at least one class each.
inline std::vector<std::size_t> ends_of(std::size_t classes, std::size_t parts) {
  std::vector<std::size_t> ends;
  for (std::size_t p = 1; p <= parts; ++p) ends.push_back(std::max(p, classes * p * (p + 1) / (parts * (parts + 1))));
  ends.back() = classes;
  return ends;
}

}  // namespace kd_test
