/// Conversion between number formats: to[i] = from[i], rounded to nearest even, NaN stays NaN.
///
/// From and To are float and bfloat16 or the reverse. Bytes: sizeof(From) + sizeof(To) per element. Launch: the
/// elementwise loop, eight elements per vector (16 bytes of the narrower format); no shared memory. The arrays do not
/// overlap. Checked in tests/cuda/cast_test.cpp.
#pragma once

#include "kd/kernel/elementwise.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

inline constexpr unsigned cast_width = 8;

template <class From, class To>
struct cast_of {
  const From* from;
  To* to;

  template <unsigned Width>
  __device__ void run(std::size_t i) const {
    float value[Width];
    load_floats<Width>(from + i, value);
    store_floats<Width>(value, to + i);
  }
};

template <class From, class To>
KD_KERNEL void __launch_bounds__(elementwise_threads)
    cast(std::size_t n, std::size_t vectors, const From* from, To* to) {
  elementwise<cast_width>(n, vectors, cast_of<From, To>{from, to});
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
