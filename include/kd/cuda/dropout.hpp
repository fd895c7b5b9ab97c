/// Dropout on the GPU, with the masks of the CPU.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kd/core/shape.hpp"
#include "kd/cuda/elementwise.hpp"
#include "kd/kernel/dropout.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// Zeroes each element with probability p and scales the others by 1 / (1 - p); applied to the gradient with the same
/// seed, step and layer it is its own backward pass. The elements that are kept are those of kd::cpu::dropout. y may be
/// x.
/// @param x an image [batch][H][W][C] or a row [batch][C]; T is float or kernel::bfloat16
/// @param step_counter in device memory, added to `step`; null for none
/// @throws argument_error when p is not in [0, 1]
template <class T>
KD_HIDDEN void dropout(const stream& s, const shape& shape, std::size_t batch, float p, std::uint64_t seed,
                       std::uint32_t step, const std::uint32_t* step_counter, std::uint32_t layer, const T* x, T* y) {
  const char* const where = "kd::cuda::dropout";
  if (!(p >= 0.0f && p <= 1.0f))
    reject_argument(where, "p must lie in [0, 1]", p, "pass the probability of zeroing an element");
  // uniform(word) >= p for 24 bits k is k >= p * 2^24, exact in double, so k >= its ceiling.
  const auto threshold = static_cast<std::uint32_t>(std::ceil(static_cast<double>(p) * 0x1p24));
  const kernel::dropout_draw draw{.seed = seed,
                                  .step = step,
                                  .step_counter = step_counter,
                                  .layer = layer,
                                  .threshold = threshold,
                                  .scale = p < 1.0f ? 1.0f / (1.0f - p) : 0.0f};
  const std::size_t n = batch * shape.size();
  const std::uint32_t channels = detail::size32(where, "channels", shape.channels);
  const std::uint32_t pixels = detail::size32(where, "pixels", shape.pixels());
  constexpr unsigned threads = kernel::elementwise_threads;
  if (n == 0) return;
  if (pixels == 1 || channels == 1) {
    const std::size_t vectors = detail::aligned_to(4 * sizeof(T), x, y) ? n / 4 : 0;
    launch(s, "dropout_in_order", blocks_for(n, 4 * threads), threads, 0, kernel::dropout_in_order<T>, n, vectors, draw,
           x, y);
  } else if (pixels % 4 == 0) {
    launch(s, "dropout_pixels", blocks_for(n / 4, threads), threads, 0, kernel::dropout_pixels<T>, n / 4, channels,
           pixels / 4, draw, x, y);
  } else {
    launch(s, "dropout_elements", blocks_for(n, threads), threads, 0, kernel::dropout_elements<T>, n, channels, pixels,
           draw, x, y);
  }
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
