/// What every source of images hands over: pixels as bytes, labels, names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kd/core/abi.hpp"
#include "kd/core/shape.hpp"

namespace kd::inline KD_ABI::data {

/// Images and their labels in file order; sample i is images[i * image.size(), (i + 1) * image.size()).
struct split {
  std::vector<std::uint8_t> images;  // [N][C][H][W]
  std::vector<std::int32_t> labels;  // [N], each in [0, classes)

  std::size_t size() const { return labels.size(); }
};

/// A labelled set of images of one shape, for training and testing.
struct dataset {
  std::string name;
  shape image;
  std::size_t classes = 0;
  std::vector<std::string> class_names;  // [classes]
  split train, test;
};

}  // namespace kd::inline KD_ABI::data
