/// Dropout with Philox in the kernel: the same masks as on the CPU, whatever the layout.
///
///   y = uniform(word) >= p ? x / (1 - p) : 0,  word = random_at(seed, dropout, e / 4, step, layer)[e % 4]
/// where e = sample * features + feature and features count in canonical order (channel * H + h) * W + w. Applied to
/// the gradient with the same numbers it is its own backward pass; y may be x.
/// Srivastava et al.: Dropout: a simple way to prevent neural networks from overfitting. JMLR 15 (2014).
/// Layout: images NHWC, rows [sample][feature]; T is float or bfloat16. Bytes: 2 sizeof(T) per element.
/// Three kernels, one thread per item in blocks of 256, no shared memory:
///   dropout_in_order   memory order is canonical (rows, one pixel or one channel): four elements, one Philox call
///   dropout_pixels     images of 4 k pixels: four pixels of one channel, which are one Philox call; channels run along
///                      the warp, so that its accesses lie side by side
///   dropout_elements   any other image: one element and one Philox call per thread
/// Limits: features below 2^32. Checked in tests/cuda/dropout_test.cpp.
#pragma once

#include "kd/kernel/elementwise.cuh"
#include "kd/kernel/random.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// The draws of one dropout layer in one step.
struct dropout_draw {
  std::uint64_t seed;
  std::uint32_t step;
  const std::uint32_t* step_counter;  // in device memory, added to step; may be null
  std::uint32_t layer;
  std::uint32_t threshold;  // of the 24 random bits: kept from here on
  float scale;

  __device__ random_words words(std::size_t group) const {
    const std::uint32_t now = step + (step_counter == nullptr ? 0u : *step_counter);
    return random_at(seed, random_stream::dropout, static_cast<std::uint32_t>(group), now, layer);
  }
  __device__ float apply(float x, std::uint32_t word) const { return (word >> 8) >= threshold ? x * scale : 0.0f; }
};

/// @param vectors groups of four that are accessed whole: n / 4, or 0 where an address does not allow it
template <class T>
KD_KERNEL void __launch_bounds__(elementwise_threads)
    dropout_in_order(std::size_t n, std::size_t vectors, const dropout_draw draw, const T* x, T* y) {
  const std::size_t group = thread_in_grid(), first = group * 4;
  if (first >= n) return;
  const random_words words = draw.words(group);
  if (group < vectors) {
    float value[4];
    load_floats<4>(x + first, value);
#pragma unroll
    for (unsigned j = 0; j < 4; ++j) value[j] = draw.apply(value[j], words.at[j]);
    store_floats<4>(value, y + first);
  } else {
#pragma unroll
    for (unsigned j = 0; j < 4; ++j)
      if (first + j < n) y[first + j] = from_float<T>(draw.apply(to_float(x[first + j]), words.at[j]));
  }
}

/// @param groups samples * channels * quarters
/// @param quarters a quarter of the pixels of an image
template <class T>
KD_KERNEL void __launch_bounds__(elementwise_threads)
    dropout_pixels(std::size_t groups, std::uint32_t channels, std::uint32_t quarters, const dropout_draw draw,
                   const T* x, T* y) {
  const std::size_t item = thread_in_grid();
  if (item >= groups) return;
  const std::uint32_t c = remainder(item, channels);
  const std::size_t quarter = quotient(item, channels);  // over all samples: sample * quarters + q
  const std::size_t sample = quotient(quarter, quarters);
  const std::size_t q = quarter - sample * quarters;
  const random_words words = draw.words((sample * channels + c) * quarters + q);
  const std::size_t first = quarter * 4 * channels + c;
  float value[4];
#pragma unroll
  for (unsigned j = 0; j < 4; ++j) value[j] = to_float(x[first + j * std::size_t{channels}]);
#pragma unroll
  for (unsigned j = 0; j < 4; ++j)
    y[first + j * std::size_t{channels}] = from_float<T>(draw.apply(value[j], words.at[j]));
}

/// @param n samples * pixels * channels
template <class T>
KD_KERNEL void __launch_bounds__(elementwise_threads)
    dropout_elements(std::size_t n, std::uint32_t channels, std::uint32_t pixels, const dropout_draw draw, const T* x,
                     T* y) {
  const std::size_t i = thread_in_grid();
  if (i >= n) return;
  const std::uint32_t c = remainder(i, channels);
  const std::size_t pixel = quotient(i, channels);  // over all samples
  const std::size_t sample = quotient(pixel, pixels);
  const std::size_t e = (sample * channels + c) * pixels + (pixel - sample * pixels);
  const random_words words = draw.words(e / 4);
  const std::uint32_t low = e % 2 == 0 ? words.at[0] : words.at[1], high = e % 2 == 0 ? words.at[2] : words.at[3];
  y[i] = from_float<T>(draw.apply(to_float(x[i]), e % 4 < 2 ? low : high));
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
