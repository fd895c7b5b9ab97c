/// Views of 8-bit images in host memory, and what is done to them on the way into a network.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/shape.hpp"

namespace kd::inline KD_ABI {

/// Mean and standard deviation per colour channel, of pixel values in 0..1: out = (pixel / 255 - mean) / std. Images of
/// fewer channels use as many entries, {{0.5f}, {0.5f}} for one; channels beyond the third use the third's.
struct normalisation {
  float mean[3];
  float std[3];

  /// Entries that images of so many channels use.
  static constexpr std::size_t used(std::size_t channels) { return std::min<std::size_t>(channels, 3); }

  friend constexpr bool operator==(const normalisation&, const normalisation&) = default;
};

/// The constants of torchvision's ImageNet models, which the PyTorch distillation tutorial uses for CIFAR-10 too.
inline constexpr normalisation imagenet_normalisation{{0.485f, 0.456f, 0.406f}, {0.229f, 0.224f, 0.225f}};
/// CIFAR-10's own mean and standard deviation over its 50,000 training images.
inline constexpr normalisation cifar10_normalisation{{0.4914f, 0.4822f, 0.4465f}, {0.2470f, 0.2435f, 0.2616f}};

/// "mean [0.485,0.456,0.406], std [0.229,0.224,0.225]": what images of so many channels use.
inline std::string text_of(const normalisation& norm, std::size_t channels) {
  const auto list = [&](const float(&values)[3]) {
    std::string out;
    for (std::size_t c = 0; c < normalisation::used(channels); ++c) out += text(c == 0 ? "" : ",", values[c]);
    return out;
  };
  return text("mean [", list(norm.mean), "], std [", list(norm.std), "]");
}

/// Whether images of so many channels can be normalised: every std positive, every factor and offset finite.
inline bool is_usable(const normalisation& norm, std::size_t channels) {
  for (std::size_t c = 0; c < normalisation::used(channels); ++c)
    if (!(norm.std[c] > 0) || !std::isfinite(norm.std[c]) || !std::isfinite(1 / (255 * norm.std[c])) ||
        !std::isfinite(norm.mean[c] / norm.std[c]))
      return false;
  return true;
}

/// Throws argument_error in the name of `function` where images of so many channels cannot be normalised.
inline void check_normalisation(std::string_view function, const normalisation& norm, std::size_t channels) {
  if (!is_usable(norm, channels))
    reject_argument(function,
                    text("a normalisation for ", channels, channels == 1 ? " channel" : " channels",
                         " must have a finite mean and a positive standard deviation for each"),
                    text_of(norm, channels),
                    "take imagenet_normalisation, cifar10_normalisation or values computed from the data");
}

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
