/// Bias, relu and 2x2 max pool in one pass over NHWC images: launcher of kd/kernel/relu_pool.cuh.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kd/core/shape.hpp"
#include "kd/cuda/channels.hpp"
#include "kd/cuda/launch.hpp"
#include "kd/cuda/pool.hpp"
#include "kd/kernel/relu_pool.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// The 2x2 pool, stride 2, of images of this shape.
constexpr pool2d_geometry halved(const shape& in) {
  return {.channels = in.channels, .in_height = in.height, .in_width = in.width};
}

/// y = 2x2 max pool of max(0, x + bias).
/// @param x [N][H][W][C], of shape `in`
/// @param bias [C], or null for none
/// @param y [N][H/2][W/2][C]
/// @param winners [N][H/2][W/2][C], the place 0..3 of the first maximum, or 4 where relu made it 0
/// @throws argument_error when an extent is below 2 or a sample has 2^31 values or more
template <class T>
KD_HIDDEN void bias_relu_pool(const stream& s, const shape& in, std::size_t batch, const T* x, const float* bias, T* y,
                              std::uint8_t* winners) {
  constexpr const char* function = "kd::cuda::bias_relu_pool";
  const pool2d_geometry g = halved(in);
  detail::check_pool(function, g);
  detail::check_pool_sample(function, in);
  if (batch * in.size() == 0) return;
  detail::with_column_width(detail::in_fours(in.channels, x, y, winners), [&](auto width) {
    const auto grid = detail::pool_grid::of(g.out().size() / width, batch);
    launch(s, "bias_relu_pool", grid.blocks, grid.threads, 0, kernel::bias_relu_pool<T, width>, detail::pool_numbers(g),
           grid.per_sample, x, bias, y, winners);
  });
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
