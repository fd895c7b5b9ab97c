/// Small data and networks for tests of training.
#pragma once

#include <kd/kd.hpp>

#include <cstring>
#include <string>
#include <vector>

#include "support/folder.hpp"

namespace kd_test {

/// 8x8 images of 4 classes that can be told apart: the class decides which quadrant is bright.
inline kd::data::dataset quadrants(std::size_t train = 200, std::size_t test = 60) {
  kd::data::dataset set;
  set.name = "quadrants";
  set.image = kd::image_shape(3, 8, 8);
  set.classes = 4;
  set.class_names = {"a", "b", "c", "d"};
  const auto fill = [](kd::data::split& split, std::size_t count, std::uint32_t which) {
    for (std::size_t n = 0; n < count; ++n) {
      const std::size_t label = n % 4;
      split.labels.push_back(static_cast<std::int32_t>(label));
      for (std::size_t e = 0; e < 3 * 64; ++e) {
        const std::size_t y = e / 8 % 8, x = e % 8;
        const bool bright = (y / 4) * 2 + x / 4 == label;
        const auto word = kd::random_at(5, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(e),
                                        static_cast<std::uint32_t>(n), which)[0];
        split.images.push_back(static_cast<std::uint8_t>((word >> 24) / 2 + (bright ? 100 : 0)));
      }
    }
  };
  fill(set.train, train, 1);
  fill(set.test, test, 2);
  return set;
}

namespace nn = kd::nn;
/// Batch norm, dropout, a residual block and a linear layer: everything that has a state.
template <std::size_t Classes>
using TinyNetOf = nn::sequential<
    kd::image<3, 8, 8>, nn::conv2d<8, 3, nn::conv_options{.padding = 1, .bias = false}>, nn::batch_norm2d<>, nn::relu,
    nn::residual<nn::main_path<nn::conv2d<8, 3, nn::conv_options{.padding = 1, .bias = false}>, nn::batch_norm2d<>>>,
    nn::relu, nn::max_pool2d<2>, nn::flatten, nn::dropout<0.2f>, nn::linear<Classes>>;
using TinyNet = TinyNetOf<4>;
using OtherNet = nn::sequential<kd::image<3, 8, 8>, nn::flatten, nn::linear<4>>;

template <class Network>
bool equal_weights(const Network& a, const Network& b) {
  return std::memcmp(a.parameters(), b.parameters(), a.parameter_floats * sizeof(float)) == 0 &&
         std::memcmp(a.state(), b.state(), a.state_floats * sizeof(float)) == 0 &&
         a.batches_tracked == b.batches_tracked;
}

}  // namespace kd_test
