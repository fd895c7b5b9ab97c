/// Conversion between the number formats of activations on the GPU.
#pragma once

#include <cstddef>
#include <type_traits>

#include "kd/cuda/elementwise.hpp"
#include "kd/kernel/cast.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// to[i] = from[i], rounded to nearest even where To is narrower; NaN stays NaN. From and To are float or
/// kernel::bfloat16; equal formats are a copy. The arrays do not overlap.
template <class From, class To>
KD_HIDDEN void cast(const stream& s, std::size_t n, const From* from, To* to) {
  if constexpr (std::is_same_v<From, To>) {
    if (n > 0)
      check(cudaMemcpyAsync(to, from, n * sizeof(To), cudaMemcpyDeviceToDevice, s.get()), "cudaMemcpyAsync on the GPU");
  } else {
    const auto work = detail::elementwise_work_of(n, kernel::cast_width, detail::aligned_to(16, from, to));
    launch(s, "cast", work.blocks, kernel::elementwise_threads, 0, kernel::cast<From, To>, n, work.vectors, from, to);
  }
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
