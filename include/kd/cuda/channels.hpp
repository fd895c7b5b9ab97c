/// Launching kernels whose threads take columns of 4 channels, or of 1: kd/kernel/channels.cuh.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kd/core/abi.hpp"
#include "kd/cuda/launch.hpp"
#include "kd/kernel/channels.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda::detail {

/// Whether columns of 4 channels of these NHWC arrays can be read and written at once; a null array does not matter.
template <class... T>
bool in_fours(std::size_t channels, const T*... arrays) {
  return channels % 4 == 0 && (... && (reinterpret_cast<std::uintptr_t>(arrays) % (4 * sizeof(T)) == 0));
}

/// Calls f with the width of a column, 4 or 1, as a constant.
template <class Function>
KD_HIDDEN void with_column_width(bool fours, const Function& f) {
  if (fours)
    f(std::integral_constant<unsigned, 4>{});
  else
    f(std::integral_constant<unsigned, 1>{});
}

}  // namespace kd::inline KD_ABI::cuda::detail
#pragma GCC visibility pop
