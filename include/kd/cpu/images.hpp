/// From 8-bit images in host memory to a normalised, augmented batch in the lane-blocked layout.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/image_view.hpp"
#include "kd/core/random.hpp"
#include "kd/core/shape.hpp"
#include "kd/cpu/parallel.hpp"
#include "kd/cpu/rows.hpp"
#include "kd/cpu/simd.hpp"

namespace kd::inline KD_ABI::cpu {

namespace detail {

typedef std::uint8_t byte_row __attribute__((vector_size(16)));

/// Where one lane's pixels come from: output (h, w) is pixel (h + down, w + right) of the image, black outside it,
/// with w counted from the right edge where `flip`.
struct lane_source {
  const std::uint8_t* image = nullptr;  // null: a lane beyond the batch
  std::ptrdiff_t down = 0, right = 0;
  bool flip = false;
};

inline lane_source source_of(const image_batch& batch, std::size_t position, const augmentation& augment,
                             std::uint64_t seed, std::uint32_t epoch) {
  lane_source source;
  if (position >= batch.count) return source;
  const std::uint32_t sample = batch.indices[position];
  source.image = batch.images + sample * batch.size.size();
  if (augment.any()) {
    const random_words words = random_at(seed, random_stream::augmentation, sample, epoch);
    const auto padding = static_cast<std::ptrdiff_t>(augment.crop_padding);
    const auto offsets = static_cast<std::uint32_t>(2 * augment.crop_padding + 1);
    source.down = static_cast<std::ptrdiff_t>(uniform_below(words[0], offsets)) - padding;
    source.right = static_cast<std::ptrdiff_t>(uniform_below(words[1], offsets)) - padding;
    source.flip = augment.flip && (words[2] & 1u) != 0;
  }
  return source;
}

/// Loads 16 output pixels of one lane, from output column `column` on; columns at or beyond the width are arbitrary.
inline void load_pixels(byte_row& pixels, const lane_source& source, const shape& s, std::size_t channel,
                        std::size_t row, std::size_t column) {
  // Sixteen 0, sixteen 255, sixteen 0: a load at 16 - k (k in -16..16) clears the first k or the last -k bytes.
  alignas(64) static constexpr std::uint8_t window[48] = {
      0,   0,   0,   0,   0,   0,   0,   0,   0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255,
      255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0,   0,   0,   0,   0,   0,   0,   0};
  const auto height = static_cast<std::ptrdiff_t>(s.height), width = static_cast<std::ptrdiff_t>(s.width);
  const std::ptrdiff_t y = static_cast<std::ptrdiff_t>(row) + source.down;
  pixels = byte_row{};
  if (source.image == nullptr || y < 0 || y >= height) return;
  const auto w = static_cast<std::ptrdiff_t>(column);
  const std::ptrdiff_t left = source.right + (source.flip ? width - 16 - w : w);  // column of the first byte
  if (left <= -16 || left >= width) return;
  const std::ptrdiff_t offset = (static_cast<std::ptrdiff_t>(channel) * height + y) * width + left;
  if (offset >= 0 && offset + 16 <= static_cast<std::ptrdiff_t>(s.size())) {
    // Whole load from the same image; what belongs to the neighbouring rows is cleared.
    load(pixels, source.image + offset);
    byte_row keep;
    if (left < 0) {
      load(keep, window + 16 + left);
      pixels &= keep;
    }
    if (left + 16 > width) {
      load(keep, window + 16 + (left + 16 - width));
      pixels &= keep;
    }
  } else {
    std::uint8_t copied[16] = {};
    const std::ptrdiff_t begin = std::max<std::ptrdiff_t>(0, -left), end = std::min<std::ptrdiff_t>(16, width - left);
    for (std::ptrdiff_t i = begin; i < end; ++i) copied[i] = source.image[offset + i];
    load(pixels, copied);
  }
  if (source.flip)
    pixels = __builtin_shufflevector(pixels, pixels, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
}

/// Transposes 16 x 16 bytes: row p becomes pixel p of the 16 lanes.
inline void transpose_bytes(byte_row (&rows)[16]) {
  // Each round pairs row i with row i + 8 and interleaves them; four rounds turn the index by four bits.
  for (int round = 0; round < 4; ++round) {
    byte_row next[16];
    for (int i = 0; i < 8; ++i) {
      next[2 * i] =
          __builtin_shufflevector(rows[i], rows[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      next[2 * i + 1] =
          __builtin_shufflevector(rows[i], rows[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    for (int i = 0; i < 16; ++i) rows[i] = next[i];
  }
}

/// One output row [W][C][16] of a block.
inline void gather_row(const lane_source (&sources)[lanes], const shape& s, const normalisation& norm, std::size_t row,
                       std::size_t live, float* out) {
  std::int32_t mask[lanes];
  for (std::size_t l = 0; l < lanes; ++l) mask[l] = l < live ? -1 : 0;
  for (std::size_t column = 0; column < s.width; column += 16) {
    const std::size_t columns = std::min<std::size_t>(16, s.width - column);
    for (std::size_t channel = 0; channel < s.channels; ++channel) {
      const std::size_t colour = std::min<std::size_t>(channel, 2);
      const float scale = 1.0f / (255.0f * norm.std[colour]), shift = -norm.mean[colour] / norm.std[colour];
      byte_row pixels[lanes];
      for (std::size_t l = 0; l < lanes; ++l) load_pixels(pixels[l], sources[l], s, channel, row, column);
      transpose_bytes(pixels);
      for (std::size_t p = 0; p < columns; ++p) {
        std::uint8_t values[lanes];
        store(values, pixels[p]);
        float* to = out + ((column + p) * s.channels + channel) * lanes;
        for (std::size_t l = 0; l < lanes; l += native_width) {
          ints raw, live_lanes;
          load_bytes<native_width>(raw, values + l);
          load(live_lanes, mask + l);
          const floats value = __builtin_convertvector(raw, floats) * scale + shift;
          store(to + l, (ints)value & live_lanes);
        }
      }
    }
  }
}

}  // namespace detail

/// Gathers a batch of 8-bit images, normalised and augmented; lanes beyond the batch become 0.
///
/// The crop offset and the flip of a sample depend on (seed, sample index, epoch) alone: words 0, 1 and 2 of
/// random_at(seed, random_stream::augmentation, sample, epoch), as torchvision's RandomCrop(size, padding) followed by
/// RandomHorizontalFlip on an 8-bit image. Channels beyond the third use the third's constants.
/// @param out [block][H][W][C][16]
/// @throws argument_error when the normalisation is not usable for so many channels
inline void gather_images(const parallel& par, const image_batch& batch, const normalisation& norm,
                          const augmentation& augment, std::uint64_t seed, std::uint32_t epoch, float* out) {
  const shape& s = batch.size;
  check_normalisation("kd::cpu::gather_images", norm, s.channels);
  if (batch.count == 0 || s.size() == 0) return;
  par.split(blocks_of(batch.count) * s.height, [&](std::size_t begin, std::size_t end, std::size_t) {
    detail::lane_source sources[lanes];
    std::size_t prepared = blocks_of(batch.count);
    for (std::size_t i = begin; i < end; ++i) {
      const std::size_t block = i / s.height, row = i % s.height;
      if (block != prepared) {
        for (std::size_t l = 0; l < lanes; ++l)
          sources[l] = detail::source_of(batch, block * lanes + l, augment, seed, epoch);
        prepared = block;
      }
      const std::size_t live = std::min(lanes, batch.count - block * lanes);
      detail::gather_row(sources, s, norm, row, live, out + i * s.width * s.channels * lanes);
    }
  });
}

}  // namespace kd::inline KD_ABI::cpu
