/// The grid of kernel/elementwise.cuh.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kd/cuda/launch.hpp"
#include "kd/kernel/elementwise.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda::detail {

/// Whether every address is a multiple of `bytes`; null counts as one.
template <class... T>
bool aligned_to(std::size_t bytes, const T*... memory) {
  return ((reinterpret_cast<std::uintptr_t>(memory) % bytes == 0) && ...);
}

/// A thread for each whole vector, then one for each element that is left.
struct elementwise_work {
  std::size_t vectors;
  unsigned blocks;
};

/// @param width elements of a vector; `wide` says whether addresses and shape allow accesses of that many
inline elementwise_work elementwise_work_of(std::size_t n, std::size_t width, bool wide) {
  const std::size_t vectors = wide ? n / width : 0;
  return {vectors, blocks_for(vectors + (n - vectors * width), kernel::elementwise_threads)};
}

/// A size as the 32 bits in which kernels divide; throws argument_error where it does not fit.
inline std::uint32_t size32(const char* where, const char* what, std::size_t size) {
  if (size > 0x7fffffffu)
    reject_argument(where, text(what, " must be at most 2147483647"), size, "use smaller images or rows");
  return static_cast<std::uint32_t>(size);
}

}  // namespace kd::inline KD_ABI::cuda::detail
#pragma GCC visibility pop
