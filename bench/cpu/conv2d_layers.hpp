/// The convolutions and linear layers of ResNet18 (ImageNet stem, 32x32 input), LightNN and SimpleNN at batch 128.
#pragma once

#include <cstddef>
#include <vector>

#include "kd/core/shape.hpp"

namespace {

using kd::conv2d_geometry;
constexpr std::size_t batch = 128;

struct layer {
  const char* name;
  conv2d_geometry g;
};

const std::vector<layer> layers{
    {"resnet/stem", {3, 32, 32, 64, 7, 7, 2, 2, 3, 3}},
    {"resnet/layer1", {64, 8, 8, 64, 3, 3, 1, 1, 1, 1}},
    {"resnet/layer2_first", {64, 8, 8, 128, 3, 3, 2, 2, 1, 1}},
    {"resnet/layer2_shortcut", {64, 8, 8, 128, 1, 1, 2, 2}},
    {"resnet/layer2", {128, 4, 4, 128, 3, 3, 1, 1, 1, 1}},
    {"resnet/layer3_first", {128, 4, 4, 256, 3, 3, 2, 2, 1, 1}},
    {"resnet/layer3_shortcut", {128, 4, 4, 256, 1, 1, 2, 2}},
    {"resnet/layer3", {256, 2, 2, 256, 3, 3, 1, 1, 1, 1}},
    {"resnet/layer4_first", {256, 2, 2, 512, 3, 3, 2, 2, 1, 1}},
    {"resnet/layer4_shortcut", {256, 2, 2, 512, 1, 1, 2, 2}},
    {"resnet/layer4", {512, 1, 1, 512, 3, 3, 1, 1, 1, 1}},
    {"resnet/classifier", {512, 1, 1, 10}},
    {"light/features.0", {3, 32, 32, 16, 3, 3, 1, 1, 1, 1}},
    {"light/features.3", {16, 16, 16, 16, 3, 3, 1, 1, 1, 1}},
    {"light/classifier.0", {1024, 1, 1, 256}},
    {"light/classifier.3", {256, 1, 1, 10}},
    {"simple/features.0", {3, 32, 32, 8, 3, 3, 1, 1, 1, 1}},
    {"simple/features.3", {8, 16, 16, 8, 3, 3, 1, 1, 1, 1}},
    {"simple/classifier.0", {512, 1, 1, 64}},
    {"simple/classifier.3", {64, 1, 1, 10}},
};

/// Floating-point operations of one pass over the batch.
double operations(const conv2d_geometry& g) {
  double rows = 0, columns = 0;
  for (std::size_t o = 0; o < g.out_height(); ++o)
    rows += static_cast<double>(kd::live_taps(o, g.in_height, g.kernel_h, g.stride_h, g.padding_h).size());
  for (std::size_t o = 0; o < g.out_width(); ++o)
    columns += static_cast<double>(kd::live_taps(o, g.in_width, g.kernel_w, g.stride_w, g.padding_w).size());
  return 2.0 * rows * columns * static_cast<double>(g.in_channels * g.out_channels * batch);
}

}  // namespace
