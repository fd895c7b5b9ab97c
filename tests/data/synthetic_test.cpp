#include "kd/data/synthetic.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "kd/io/checksum.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/message.hpp"

using kd::data::synthetic_options;
using kd::data::synthetic_shapes;

namespace {

std::string digest(const kd::data::split& split) {
  kd::io::sha256 hash;
  hash.update(split.images);
  for (const std::int32_t label : split.labels) hash.update(kd::text(label, ' '));
  return hash.hex();
}

}  // namespace

TEST_CASE("synthetic: the images are the same on every compiler and flag", "[data][synthetic]") {
  const kd::data::dataset set = synthetic_shapes({.train = 200, .test = 50});
  CHECK(digest(set.train) == "9f7b831635b5be664091f4ff707f55eba124a24dd368cabc44cbc9011159c12d");
  CHECK(digest(set.test) == "0cce5a33779759994ba85f032c746362ce7ef1f4f1022d3059f2ca8dfa4d9524");
}

TEST_CASE("synthetic: shape, sizes, names and balanced classes", "[data][synthetic]") {
  const kd::data::dataset set = synthetic_shapes({.train = 105, .test = 30});
  CHECK(set.image == kd::image_shape(3, 32, 32));
  CHECK(set.classes == 10);
  REQUIRE(set.class_names.size() == 10);
  CHECK(set.class_names[5] == "star5");
  CHECK(set.train.size() == 105);
  CHECK(set.train.images.size() == 105 * 3072);
  CHECK(set.test.size() == 30);
  CHECK(set.test.images.size() == 30 * 3072);
  std::vector<int> counts(10);
  for (const std::int32_t label : set.test.labels) ++counts.at(static_cast<std::size_t>(label));
  CHECK(counts == std::vector<int>(10, 3));
}

TEST_CASE("synthetic: a longer set begins with the shorter one; seed and split change every image",
          "[data][synthetic]") {
  const kd::data::dataset shorter = synthetic_shapes({.train = 20, .test = 20});
  const kd::data::dataset longer = synthetic_shapes({.train = 40, .test = 20});
  const kd::data::dataset other = synthetic_shapes({.train = 20, .test = 20, .seed = 2});
  CHECK(std::equal(shorter.train.images.begin(), shorter.train.images.end(), longer.train.images.begin()));
  for (std::size_t i = 0; i < 20; ++i) {
    const auto image = [&](const kd::data::split& split) {
      return std::string_view(reinterpret_cast<const char*>(split.images.data()) + i * 3072, 3072);
    };
    CHECK(image(shorter.train) != image(other.train));
    CHECK(image(shorter.train) != image(shorter.test));
  }
}

TEST_CASE("synthetic: without noise and clutter the class decides the pixels", "[data][synthetic]") {
  // The painter draws the same random numbers whatever the label, up to the object, so two labels of one image number
  // differ by the object alone.
  const synthetic_options plain{.noise = 0, .distractors = 0, .occlusion = 0};
  std::vector<std::vector<std::uint8_t>> drawn(10, std::vector<std::uint8_t>(3072));
  for (int label = 0; label < 10; ++label) {
    kd::data::detail::synthetic_painter(plain, 3, 0).paint(label, drawn[static_cast<std::size_t>(label)].data());
  }
  for (std::size_t a = 0; a < 10; ++a) {
    for (std::size_t b = a + 1; b < 10; ++b) {
      int different = 0;
      for (std::size_t i = 0; i < 3072; ++i) {
        const int gap = drawn[a][i] - drawn[b][i];
        different += gap < -8 || gap > 8;
      }
      INFO("classes " << a << " and " << b);
      CHECK(different > 40);
    }
  }
}

TEST_CASE("synthetic: label noise changes labels of the training set alone, and no picture", "[data][synthetic]") {
  const kd::data::dataset noisy = synthetic_shapes({.train = 2000, .test = 50, .label_noise = 20});
  const kd::data::dataset clean = synthetic_shapes({.train = 2000, .test = 50, .label_noise = 0});
  CHECK(noisy.train.images == clean.train.images);
  CHECK(noisy.test.labels == clean.test.labels);
  int wrong = 0;
  for (std::size_t i = 0; i < 2000; ++i) {
    REQUIRE(clean.train.labels[i] == static_cast<std::int32_t>(i % 10));
    REQUIRE(noisy.train.labels[i] >= 0);
    REQUIRE(noisy.train.labels[i] < 10);
    wrong += noisy.train.labels[i] != clean.train.labels[i];
  }
  // A tenth of the new labels is right by chance: 2000 * 0.2 * 0.9 = 360 with standard deviation 17.
  CHECK(wrong > 290);
  CHECK(wrong < 430);
}

TEST_CASE("synthetic: no colour gives the class away", "[data][synthetic]") {
  // Mean of a channel over the images of a class: 200 images with a standard deviation of about 50 have 3.5 of error.
  const kd::data::dataset set = synthetic_shapes({.train = 2000, .test = 10, .label_noise = 0});
  std::vector<double> sums(10);
  for (std::size_t i = 0; i < set.train.size(); ++i) {
    for (std::size_t p = 0; p < 3072; ++p) sums[i % 10] += set.train.images[i * 3072 + p];
  }
  double all = 0;
  for (const double sum : sums) all += sum / 10;
  for (const double sum : sums) CHECK(kd_test::near(sum, all, {.absolute = 12.0 * 200 * 3072}));
}

TEST_CASE("synthetic: an option out of range is named with its value", "[data][synthetic]") {
  const auto message = [](const synthetic_options& options) {
    return kd_test::message_of<kd::argument_error>([&] { (void)synthetic_shapes(options); });
  };
  CHECK(message({.train = 0}) ==
        "kd::data::synthetic_shapes: train must lie in [1, 10000000], received 0; leave it out for the default");
  CHECK(message({.test = 0}).find("test must lie in [1, 10000000], received 0") != std::string::npos);
  CHECK(message({.noise = -1}).find("noise must lie in [0, 255], received -1") != std::string::npos);
  CHECK(message({.contrast = 129}).find("contrast must lie in [0, 128], received 129") != std::string::npos);
  CHECK(message({.distractors = 17}).find("distractors must lie in [0, 16], received 17") != std::string::npos);
  CHECK(message({.label_noise = -5}).find("label_noise must lie in [0, 100], received -5") != std::string::npos);
  CHECK(message({.occlusion = 101}).find("occlusion must lie in [0, 100], received 101") != std::string::npos);
}
