/// From 8-bit images to a normalised, augmented batch in NHWC.
///
///   out[i][h][w][c] = fmaf(pixel, scale[c], shift[c]),  pixel = image[indices[i]][c][h + down][w' + right], 0 outside,
///   with w' = width - 1 - w where the sample is mirrored, else w
/// down, right and the mirroring come from words 0, 1 and 2 of random_at(seed, augmentation, sample, epoch), as in
/// kd/cpu/images.hpp: torchvision's RandomCrop(size, padding), then RandomHorizontalFlip. Channels beyond the third use
/// the third's constants.
/// Layout: images [sample][C][H][W] bytes, out [count][H][W][C]. Bytes per element: 1 read, sizeof(T) written.
/// Launch: 128 threads, one for Width elements that lie side by side in `out` (16 bytes, or one element where the size
/// of an image or an address does not allow that); `blocks` of them per image. No shared memory.
/// Limits: an image and its border are below 2^31 elements; indices are not checked. Checked in
/// tests/cuda/images_test.cpp.
#pragma once

#include "kd/kernel/elementwise.cuh"
#include "kd/kernel/random.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

inline constexpr unsigned gather_images_threads = 128;

/// What gather_images does to every image.
struct image_changes {
  float scale[3], shift[3];  // per colour, for pixels in 0..255
  std::int32_t crop_padding;
  bool flip;
  std::uint64_t seed;
  std::uint32_t epoch;
};

/// Where one sample's pixels come from.
struct image_source {
  std::int32_t down = 0, right = 0;
  bool flip = false;
};

__device__ inline image_source source_of(const image_changes& changes, std::uint32_t sample, std::uint32_t epoch) {
  image_source source;
  if (changes.crop_padding == 0 && !changes.flip) return source;
  const random_words words = random_at(changes.seed, random_stream::augmentation, sample, epoch);
  const auto offsets = static_cast<std::uint32_t>(2 * changes.crop_padding + 1);
  source.down = static_cast<std::int32_t>(uniform_below(words.at[0], offsets)) - changes.crop_padding;
  source.right = static_cast<std::int32_t>(uniform_below(words.at[1], offsets)) - changes.crop_padding;
  source.flip = changes.flip && (words.at[2] & 1u) != 0;
  return source;
}

/// @param epoch_counter added to changes.epoch; may be null
/// @param blocks of the grid for each image
template <class T, unsigned Width>
KD_KERNEL void __launch_bounds__(gather_images_threads)
    gather_images(const std::uint8_t* images, std::uint32_t channels, std::uint32_t height, std::uint32_t width,
                  const std::uint32_t* indices, const image_changes changes, const std::uint32_t* epoch_counter,
                  std::uint32_t blocks, T* out) {
  const std::uint32_t size = channels * height * width, i = blockIdx.x / blocks;
  const std::uint32_t element = (blockIdx.x % blocks * gather_images_threads + threadIdx.x) * Width;
  if (element >= size) return;
  const std::uint32_t sample = indices[i];
  const std::uint32_t epoch = changes.epoch + (epoch_counter == nullptr ? 0u : *epoch_counter);
  const image_source source = source_of(changes, sample, epoch);
  const std::uint8_t* const image = images + std::size_t{sample} * size;
  const std::uint32_t pixel = element / channels;
  std::uint32_t c = element % channels, w = pixel % width, h = pixel / width;
  float values[Width];
#pragma unroll
  for (unsigned j = 0; j < Width; ++j) {
    const std::uint32_t column = source.flip ? width - 1 - w : w;
    // A position left of or above the image wraps to a large number: one comparison for both sides.
    const std::uint32_t y = h + static_cast<std::uint32_t>(source.down);
    const std::uint32_t x = column + static_cast<std::uint32_t>(source.right);
    const float raw = y < height && x < width ? static_cast<float>(image[(c * height + y) * width + x]) : 0.0f;
    const float scale = c == 0 ? changes.scale[0] : c == 1 ? changes.scale[1] : changes.scale[2];
    const float shift = c == 0 ? changes.shift[0] : c == 1 ? changes.shift[1] : changes.shift[2];
    values[j] = fmaf(raw, scale, shift);
    if (++c == channels) {
      c = 0;
      if (++w == width) {
        w = 0;
        ++h;
      }
    }
  }
  store_floats<Width>(values, out + std::size_t{i} * size + element);
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
