/// A function called on the GPU once for every index.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <type_traits>

#include "kd/cuda/elementwise.hpp"
#include "kd/kernel/for_each.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// Calls function(i) for every i in [0, n), in any order and at the same time. `function` is copied to the GPU: a
/// struct of numbers and of pointers to device memory, of at most 4,000 bytes, with
///   KD_HOST_DEVICE void operator()(std::size_t i) const;
template <class Function, class Visibility = kernel::not_shared>
void for_each(const stream& s, std::size_t n, const Function& function) {
  static_assert(std::is_trivially_copyable_v<Function> && sizeof(Function) <= 4000,
                "kd::cuda::for_each: the function must be trivially copyable and at most 4000 bytes");
  static_assert(std::invocable<const Function&, std::size_t>,
                "kd::cuda::for_each: the function must have void operator()(std::size_t) const");
  const std::size_t blocks = n / kernel::elementwise_threads + (n % kernel::elementwise_threads != 0);
  launch(s, "for_each", static_cast<unsigned>(std::min<std::size_t>(blocks, 0x7fffffffu)), kernel::elementwise_threads,
         0, kernel::for_each<Function, Visibility>, n, function);
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
