/// From resident 8-bit images to a normalised, augmented batch, on the GPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kd/core/image_view.hpp"
#include "kd/cuda/elementwise.hpp"
#include "kd/kernel/images.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// Gathers a batch of 8-bit images, normalised and augmented. Crops and mirrorings are those of
/// kd::cpu::gather_images; values are fmaf(pixel, scale, shift), which a CPU build with FMA instructions computes as
/// well and one without them to a rounding.
/// @param images [sample][C][H][W]
/// @param epoch_counter in device memory, added to `epoch`; null for none
/// @param out [count][H][W][C]; T is float or kernel::bfloat16
/// @throws argument_error when the normalisation is not usable for so many channels, or an image and its border exceed
/// 2^31 elements
template <class T>
KD_HIDDEN void gather_images(const stream& s, const std::uint8_t* images, const shape& size,
                             const std::uint32_t* indices, std::size_t count, const normalisation& norm,
                             const augmentation& augment, std::uint64_t seed, std::uint32_t epoch,
                             const std::uint32_t* epoch_counter, T* out) {
  const char* const where = "kd::cuda::gather_images";
  check_normalisation(where, norm, size.channels);
  if (augment.crop_padding > 0x10000000u)
    reject_argument(where, "crop_padding must be at most 268435456", augment.crop_padding, "4 is usual");
  const std::uint32_t elements = detail::size32(where, "elements of an image", size.size());
  if (count == 0 || elements == 0) return;
  kernel::image_changes changes{};
  for (std::size_t c = 0; c < normalisation::used(size.channels); ++c) {
    changes.scale[c] = 1.0f / (255.0f * norm.std[c]);
    changes.shift[c] = -norm.mean[c] / norm.std[c];
  }
  changes.crop_padding = static_cast<std::int32_t>(augment.crop_padding);
  changes.flip = augment.flip;
  changes.seed = seed;
  changes.epoch = epoch;
  constexpr unsigned width = kernel::pack_width<T>, threads = kernel::gather_images_threads;
  const bool wide = elements % width == 0 && detail::aligned_to(16, out);
  const unsigned blocks = blocks_for(elements, std::size_t{threads} * (wide ? width : 1));
  launch(s, "gather_images", blocks_for(count * blocks, 1), threads, 0,
         wide ? kernel::gather_images<T, width> : kernel::gather_images<T, 1>, images,
         static_cast<std::uint32_t>(size.channels), static_cast<std::uint32_t>(size.height),
         static_cast<std::uint32_t>(size.width), indices, changes, epoch_counter, blocks, out);
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
