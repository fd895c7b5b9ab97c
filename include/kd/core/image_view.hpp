/// Views of 8-bit images in host memory, and what is done to them on the way into a network.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kd/core/abi.hpp"
#include "kd/core/shape.hpp"

namespace kd::inline KD_ABI {

/// Mean and standard deviation per colour channel, of pixel values in 0..1: out = (pixel / 255 - mean) / std.
struct normalisation {
  float mean[3];
  float std[3];
};

/// The constants of torchvision's ImageNet models, which the PyTorch distillation tutorial uses for CIFAR-10 too.
inline constexpr normalisation imagenet_normalisation{{0.485f, 0.456f, 0.406f}, {0.229f, 0.224f, 0.225f}};
/// CIFAR-10's own mean and standard deviation over its 50,000 training images.
inline constexpr normalisation cifar10_normalisation{{0.4914f, 0.4822f, 0.4465f}, {0.2470f, 0.2435f, 0.2616f}};

/// Random changes of training images.
struct augmentation {
  /// Black pixels put around the image before a crop of the original size is taken at random; 0 for no crop.
  std::size_t crop_padding = 0;
  /// Mirror left and right with probability 1/2, after the crop.
  bool flip = false;

  constexpr bool any() const { return crop_padding != 0 || flip; }
};

/// A batch taken from a set of 8-bit images [sample][C][H][W] (CIFAR's binary order).
struct image_batch {
  const std::uint8_t* images;    // [sample][C][H][W]
  shape size;                    // of one image
  const std::uint32_t* indices;  // [count], samples of the batch
  std::size_t count;
};

}  // namespace kd::inline KD_ABI
