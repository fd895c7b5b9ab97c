#include "kd/data/dataset.hpp"

#include <vector>

#include "kd/data/from_hwc.hpp"
#include "support/catch.hpp"
#include "support/message.hpp"

TEST_CASE("from_hwc: channels come first, image by image", "[data]") {
  // Two images of 2 rows, 3 columns and 2 channels; a byte is 100 n + 20 y + 4 x + c.
  const kd::shape image = kd::image_shape(2, 2, 3);
  std::vector<std::uint8_t> bytes, want;
  for (int n = 0; n < 2; ++n)
    for (int y = 0; y < 2; ++y)
      for (int x = 0; x < 3; ++x)
        for (int c = 0; c < 2; ++c) bytes.push_back(static_cast<std::uint8_t>(100 * n + 20 * y + 4 * x + c));
  for (int n = 0; n < 2; ++n)
    for (int c = 0; c < 2; ++c)
      for (int y = 0; y < 2; ++y)
        for (int x = 0; x < 3; ++x) want.push_back(static_cast<std::uint8_t>(100 * n + 20 * y + 4 * x + c));
  CHECK(kd::data::from_hwc(bytes, image) == want);
  CHECK(kd::data::from_hwc(bytes, image) != bytes);
  CHECK(kd::data::from_hwc(bytes, kd::image_shape(1, 2, 3)) == bytes);  // one channel: the orders are the same
  CHECK(kd::data::from_hwc({}, image).empty());
}

TEST_CASE("check: a set without names, without test images, holds together", "[data]") {
  const kd::data::dataset set{
      .image = kd::image_shape(1, 2, 2), .classes = 3, .train = {.images = {1, 2, 3, 4, 5, 6, 7, 8}, .labels = {2, 0}}};
  CHECK_NOTHROW(kd::data::check(set));
  CHECK(kd_test::message_of<kd::argument_error>([&] { kd::data::require_samples("here", set.train, set.image, 2); }) ==
        "here: label 0 must be in [0, 2), received 2; labels count from 0: correct it, or use as many classes as the "
        "data has");
}
