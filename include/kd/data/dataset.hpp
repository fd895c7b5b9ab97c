/// What every source of images hands over: pixels as bytes, labels, names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/labels.hpp"
#include "kd/core/shape.hpp"
#include "kd/core/sizes.hpp"

namespace kd::inline KD_ABI::data {

/// Images and their labels in file order; sample i is images[i * image.size(), (i + 1) * image.size()).
struct split {
  std::vector<std::uint8_t> images = {};  // [N][C][H][W]; from_hwc gives this order
  std::vector<std::int32_t> labels = {};  // [N], each in [0, classes)

  std::size_t size() const { return labels.size(); }
};

/// A labelled set of images of one shape, for training and testing. `check` says whether one that was filled by hand
/// holds together.
struct dataset {
  std::string name = {};
  shape image = {};
  std::size_t classes = 0;
  std::vector<std::string> class_names = {};  // [classes], or none
  split train = {}, test = {};
};

/// Throws argument_error, in the name of `function`, unless there is one image for each label, and each label is a
/// class.
inline void require_samples(std::string_view function, const split& samples, const shape& image, std::size_t classes) {
  const std::size_t bytes = product_of(function, {samples.size(), image.channels, image.height, image.width},
                                       "give the shape of one image: image_shape(channels, height, width)");
  if (samples.images.size() != bytes)
    reject_argument(function,
                    text("the images of ", samples.size(), " labels must have ", samples.size(), " times ",
                         image.size(), " bytes ", text_of(image), ", ", bytes),
                    samples.images.size(), "give one image for each label");
  require_labels(function, samples.labels, classes);
}

/// Throws argument_error where shape, classes, names, images and labels of a data set do not fit together.
inline void check(const dataset& set) {
  constexpr std::string_view me = "kd::data::check";
  if (set.image.channels == 0 || set.image.height == 0 || set.image.width == 0)
    reject_argument(me, "an image must have at least 1 byte", text_of(set.image),
                    "give the shape of one image: image_shape(channels, height, width)");
  if (set.classes == 0) reject_argument(me, "classes must be at least 1", set.classes, "count the kinds of labels");
  if (!set.class_names.empty() && set.class_names.size() != set.classes)
    reject_argument(me, text("class_names must hold ", set.classes, " names, or none"), set.class_names.size(),
                    "name every class once");
  require_samples("kd::data::check: train", set.train, set.image, set.classes);
  require_samples("kd::data::check: test", set.test, set.image, set.classes);
}

}  // namespace kd::inline KD_ABI::data
