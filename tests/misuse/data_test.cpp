/// Data sets that do not hold together, given to what trains and evaluates.
#include <kd/kd.hpp>

#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "support/catch.hpp"
#include "support/message.hpp"
#include "support/tiny.hpp"

using namespace kd_test;
using device = kd::cpu::device;
using tiny = kd::network<TinyNet, device>;

namespace {

/// The message of fit() for this set.
std::string refused(const kd::data::dataset& set, const kd::train::options& settings = {.batch_size = 16}) {
  device cpu(1);
  tiny net(cpu, 1);
  return message_of<kd::argument_error>([&] { kd::train::fit(net, set, kd::optim::adam{}, settings); });
}

}  // namespace

TEST_CASE("misuse: images and labels of different number", "[misuse][data]") {
  auto set = quadrants(64, 8);
  set.train.images.resize(20 * 192);
  set.train.images.shrink_to_fit();  // what is read beyond is not this vector's
  const std::string fewer = refused(set);
  INFO(fewer);
  CHECK(holds(fewer, "kd::train::trainer: the images of 64 labels", "[3,8,8], 12288", "received 3840",
              "one image for each label"));

  set = quadrants(64, 8);
  set.train.labels.resize(20);
  CHECK(holds(refused(set), "kd::train::trainer: the images of 20 labels", "3840, received 12288", "one image"));

  set = quadrants(64, 8);
  set.train.images.pop_back();
  CHECK(holds(refused(set), "the images of 64 labels", "12288, received 12287", "one image"));

  set = quadrants(64, 8);
  set.train.images.clear();
  CHECK(holds(refused(set), "the images of 64 labels", "received 0", "one image"));
}

TEST_CASE("misuse: labels that are no classes", "[misuse][data]") {
  auto set = quadrants(64, 8);
  set.train.labels[5] = 4;
  CHECK(holds(refused(set), "kd::train::trainer: label 5 must be in [0, 4), received 4", "as many classes"));
  set.train.labels[5] = -100;
  CHECK(holds(refused(set), "label 5 must be in [0, 4), received -100", "ignore_index", "leave those rows out"));
  set.train.labels[5] = std::numeric_limits<std::int32_t>::min();
  CHECK(holds(refused(set), "label 5", "received -2147483648", "count from 0"));
}

TEST_CASE("misuse: a data set of another shape, of other classes, or empty", "[misuse][data]") {
  auto set = quadrants(64, 8);
  set.image = kd::image_shape(8, 8, 3);
  CHECK(holds(refused(set), "kd::train::trainer", "[3,8,8]", "received [8,8,3]", "train a network for these images"));
  set = quadrants(64, 8);
  set.classes = 10;
  CHECK(holds(refused(set), "kd::train::trainer", "4 classes", "received 10", "as many outputs"));
  set = quadrants(64, 8);
  set.train = {};
  CHECK(holds(refused(set), "kd::data::loader: samples must be at least 1, received 0", "load a data set"));
}

TEST_CASE("misuse: a temporary data set does not compile as a trainer's", "[misuse][data]") {
  using trainer = kd::train::trainer<tiny, kd::cross_entropy, kd::optim::adam>;
  using distiller = kd::train::trainer<tiny, kd::distillation, kd::optim::adam, kd::train::cached_teacher>;
  using kd::data::dataset;
  using kd::train::options;
  CHECK(std::is_constructible_v<trainer, tiny&, const dataset&, kd::cross_entropy, kd::optim::adam, options>);
  CHECK(!std::is_constructible_v<trainer, tiny&, dataset, kd::cross_entropy, kd::optim::adam, options>);
  CHECK(!std::is_constructible_v<trainer, tiny&, const dataset, kd::cross_entropy, kd::optim::adam, options>);
  CHECK(!std::is_constructible_v<distiller, tiny&, dataset, kd::distillation, kd::optim::adam, options,
                                 kd::train::cached_teacher>);
}

TEST_CASE("misuse: check finds what does not fit in a set that was filled by hand", "[misuse][data]") {
  const auto message = [](const auto& change) {
    auto set = quadrants(64, 8);
    change(set);
    return message_of<kd::argument_error>([&] { kd::data::check(set); });
  };
  CHECK(message([](auto&) {}) == "nothing was thrown");
  CHECK(message([](auto& set) { set.class_names.clear(); }) == "nothing was thrown");
  CHECK(holds(message([](auto& set) { set.image = {}; }), "kd::data::check", "at least 1 byte", "received [0,1,1]",
              "image_shape"));
  CHECK(holds(message([](auto& set) { set.classes = 0; }), "kd::data::check: classes", "received 0", "count"));
  CHECK(holds(message([](auto& set) { set.class_names.pop_back(); }), "kd::data::check", "4 names, or none",
              "received 3", "name every class"));
  CHECK(holds(message([](auto& set) { set.test.images.pop_back(); }), "kd::data::check: test", "of 8 labels",
              "received 1535", "one image for each label"));
  CHECK(holds(message([](auto& set) { set.train.labels[9] = 7; }), "kd::data::check: train: label 9", "received 7"));
  const std::size_t half = std::size_t{1} << 32;  // 64 labels of 2^32 x 2^32 pixels would wrap to 0 bytes
  CHECK(holds(message([&](auto& set) {
                set.image = kd::image_shape(1, half, half);
                set.train.images.clear();
              }),
              "kd::data::check: train: sizes must multiply", "64 * 1 * 4294967296 * 4294967296", "image_shape"));
}

TEST_CASE("misuse: from_hwc of bytes that are not whole images", "[misuse][data]") {
  const std::vector<std::uint8_t> bytes(100);
  const auto message = [&](const kd::shape& image) {
    return message_of<kd::argument_error>([&] { (void)kd::data::from_hwc(bytes, image); });
  };
  CHECK(holds(message(kd::image_shape(3, 4, 4)), "kd::data::from_hwc", "whole number of images [3,4,4] of 48 bytes",
              "received 100", "image_shape(channels, height, width)"));
  CHECK(holds(message({}), "kd::data::from_hwc", "at least 1 byte", "received [0,1,1]", "image_shape"));
  const std::size_t half = std::size_t{1} << 32;
  CHECK(holds(message(kd::image_shape(half, half, 1)), "kd::data::from_hwc: sizes must multiply", "image_shape"));
}

TEST_CASE("misuse: evaluation of images and labels that do not fit", "[misuse][data]") {
  device cpu(1);
  tiny net(cpu, 1);
  auto set = quadrants(8, 8);
  const auto message = [&] {
    return message_of<kd::argument_error>([&] { (void)kd::train::evaluate(net, set.test); });
  };
  set.test.images.resize(5 * 192);
  CHECK(holds(message(), "kd::train::evaluate: the images of 8 labels", "received 960", "one image for each label"));
  set = quadrants(8, 8);
  set.test.labels.resize(5);
  CHECK(holds(message(), "kd::train::evaluate: the images of 5 labels", "received 1536", "one image for each label"));
  set = quadrants(8, 8);
  set.test.labels[3] = -1;
  CHECK(holds(message(), "kd::train::evaluate: label 3", "received -1", "count from 0"));
  const std::vector<std::uint8_t> odd(100);
  CHECK(holds(message_of<kd::argument_error>([&] { (void)kd::train::predict(net, odd); }), "kd::train::predict",
              "images [3,8,8] of 192 bytes", "received 100", "input shape"));
}
