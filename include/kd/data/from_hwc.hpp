/// Images as most decoders give them, channels last, in the order that data sets of kd have.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/shape.hpp"
#include "kd/core/sizes.hpp"

namespace kd::inline KD_ABI::data {

/// Bytes [N][H][W][C] (stb_image, OpenCV, PIL, numpy) as [N][C][H][W], for split::images. Nothing in the bytes tells
/// the two orders apart: a network trains on the wrong one without a word, and badly. `image` is the shape of one
/// image; channels keep their order (OpenCV's is blue, green, red). Throws argument_error where the bytes are not a
/// whole number of images.
inline std::vector<std::uint8_t> from_hwc(std::span<const std::uint8_t> bytes, const shape& image) {
  constexpr std::string_view me = "kd::data::from_hwc";
  constexpr std::string_view remedy = "give the shape of one image: image_shape(channels, height, width)";
  const std::size_t size = product_of(me, {image.channels, image.height, image.width}, remedy);
  if (size == 0) reject_argument(me, "an image must have at least 1 byte", text_of(image), remedy);
  if (bytes.size() % size != 0)
    reject_argument(me, text("a whole number of images ", text_of(image), " of ", size, " bytes"), bytes.size(),
                    remedy);
  std::vector<std::uint8_t> out(bytes.size());
  for (std::size_t first = 0; first < bytes.size(); first += size)
    for (std::size_t channel = 0; channel < image.channels; ++channel)
      for (std::size_t pixel = 0; pixel < image.pixels(); ++pixel)
        out[first + channel * image.pixels() + pixel] = bytes[first + pixel * image.channels + channel];
  return out;
}

}  // namespace kd::inline KD_ABI::data
