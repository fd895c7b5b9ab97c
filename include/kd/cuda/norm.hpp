/// Batch normalisation on the GPU, fused with the residual sum and the relu that follow it: launchers of
/// kd/kernel/norm.cuh and norm_backward.cuh. Images are [sample][height][width][channel], of float or bfloat16.
#pragma once

#include <algorithm>
#include <cstddef>

#include "kd/core/error.hpp"
#include "kd/core/shape.hpp"
#include "kd/cuda/channels.hpp"
#include "kd/cuda/launch.hpp"
#include "kd/kernel/norm.cuh"
#include "kd/kernel/norm_backward.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

namespace detail {

/// Rows up to which one block keeps its channels to itself. An estimate, not measured: 2,048 rows are 64 KiB of floats
/// per block, a few microseconds for one multiprocessor, where the launches that are saved cost 1.3 us each in a graph.
inline constexpr std::size_t norm_one_block_rows = 2048;
/// Blocks among which the rows are cut for sums: two for each of an H200's 132 multiprocessors. Not measured.
inline constexpr std::size_t norm_blocks = 256;

/// Columns of `width` channels, at most `most` of them to a block, evenly over as few groups as that takes.
constexpr kernel::channel_tiling channel_columns(std::size_t rows, std::size_t channels, unsigned width, unsigned most,
                                                 unsigned threads) {
  const std::size_t all = channels / width, groups = (all + most - 1) / most;
  kernel::channel_tiling t;
  t.rows = rows;
  t.channels = static_cast<unsigned>(channels);
  t.groups = static_cast<unsigned>(groups);
  t.columns = static_cast<unsigned>((all + groups - 1) / groups);
  t.lanes = static_cast<unsigned>(std::min<std::size_t>(rows, threads / t.columns));
  return t;
}

/// One slab of all rows.
constexpr kernel::channel_tiling norm_one_block_tiling(std::size_t rows, std::size_t channels, unsigned width) {
  auto t =
      channel_columns(rows, channels, width, kernel::norm_one_block_channels / width, kernel::norm_one_block_threads);
  t.slabs = 1;
  t.rows_per_slab = rows;
  return t;
}
/// As many slabs as give each thread norm_rows rows, but not more than norm_blocks blocks; none is empty.
constexpr kernel::channel_tiling norm_sum_tiling(std::size_t rows, std::size_t channels, unsigned width) {
  auto t = channel_columns(rows, channels, width, kernel::warp_size, kernel::norm_threads);
  const std::size_t least = std::size_t{t.lanes} * kernel::norm_rows,
                    most = std::max<std::size_t>(1, norm_blocks / t.groups);
  const std::size_t slabs = std::min((rows + least - 1) / least, most);
  t.rows_per_slab = (rows + slabs - 1) / slabs;
  t.slabs = static_cast<unsigned>((rows + t.rows_per_slab - 1) / t.rows_per_slab);
  return t;
}
/// norm_rows rows for each thread.
KD_HIDDEN inline kernel::channel_tiling norm_elementwise_tiling(std::size_t rows, std::size_t channels,
                                                                unsigned width) {
  auto t = channel_columns(rows, channels, width, kernel::warp_size, kernel::norm_threads);
  t.rows_per_slab = std::size_t{t.lanes} * kernel::norm_rows;
  t.slabs = blocks_for(rows, t.rows_per_slab);
  return t;
}

inline unsigned tiling_blocks(const kernel::channel_tiling& t) {
  return blocks_for(std::size_t{t.groups} * t.slabs, 1);
}
/// Whole warps that hold the tiling's threads.
inline unsigned tiling_threads(const kernel::channel_tiling& t) {
  return (t.columns * t.lanes + kernel::warp_size - 1) / kernel::warp_size * kernel::warp_size;
}

constexpr void check_norm(const char* function, const shape& s) {
  if (s.channels > 0x7fffffffu)
    reject_argument(function, "at most 2147483647 channels", s.channels, "split the image by channels");
}

}  // namespace detail

/// Floats of scratch that a training forward or a backward pass needs: partial sums, aligned as floats.
constexpr std::size_t batch_norm2d_scratch(const shape& s, std::size_t batch) {
  const std::size_t rows = batch * s.pixels();
  if (rows <= detail::norm_one_block_rows || s.channels == 0) return 0;
  const auto needed = [&](unsigned width) {
    return 2 * s.channels * detail::norm_sum_tiling(rows, s.channels, width).slabs;
  };
  return s.channels % 4 == 0 ? std::max(needed(4), needed(1)) : needed(1);
}

/// Training forward pass: normalises by the statistics of the batch and updates the running ones, as PyTorch does
/// (biased variance to normalise, unbiased for running_var). One launch up to 2,048 values per channel, else three.
/// @param x [N][H][W][C]
/// @param residual as x, added after the affine map, or null
/// @param relu whether max(., 0) follows
/// @param y as x; may be x or residual
/// @param saved_mean, saved_inv_std [C], written for the backward pass
/// @param scratch batch_norm2d_scratch(s, batch) floats
/// @throws argument_error with one value per channel, whose variance is not defined
template <class T>
KD_HIDDEN void batch_norm2d_forward_train(const stream& s, const shape& size, std::size_t batch, const T* x,
                                          const float* gamma, const float* beta, float epsilon, float momentum,
                                          const T* residual, bool relu, T* y, float* saved_mean, float* saved_inv_std,
                                          float* running_mean, float* running_var, float* scratch) {
  constexpr const char* function = "kd::cuda::batch_norm2d_forward_train";
  const std::size_t rows = batch * size.pixels();
  if (rows * size.channels == 0) return;
  detail::check_norm(function, size);
  if (rows == 1)
    reject_argument(function, "training needs more than 1 value per channel", text("batch 1 of ", text_of(size)),
                    "use a larger batch, or drop the last one where it is not full");
  const kernel::norm_statistics statistics{saved_mean, saved_inv_std, running_mean, running_var, epsilon, momentum};
  detail::with_column_width(detail::in_fours(size.channels, x, residual, y), [&](auto width) {
    if (rows <= detail::norm_one_block_rows) {
      const auto t = detail::norm_one_block_tiling(rows, size.channels, width);
      launch(s, "norm_forward_one_block", detail::tiling_blocks(t), detail::tiling_threads(t), 0,
             kernel::norm_forward_one_block<T, width>, t, x, gamma, beta, statistics, residual, relu, y);
      return;
    }
    const auto t = detail::norm_sum_tiling(rows, size.channels, width);
    launch(s, "norm_moments", detail::tiling_blocks(t), kernel::norm_threads, 0, kernel::norm_moments<T, width>, t, x,
           scratch);
    launch(s, "norm_finish_moments", blocks_for(size.channels, kernel::norm_threads / kernel::warp_size),
           kernel::norm_threads, 0, kernel::norm_finish_moments<T>, t, x, scratch, statistics);
    const auto all = detail::norm_elementwise_tiling(rows, size.channels, width);
    launch(s, "norm_normalise", detail::tiling_blocks(all), detail::tiling_threads(all), 0,
           kernel::norm_normalise<T, width, true>, all, x, gamma, beta, saved_mean, saved_inv_std, epsilon, residual,
           relu, y);
  });
}

/// Inference forward pass: normalises by the running statistics; arguments as batch_norm2d_forward_train. One launch.
template <class T>
KD_HIDDEN void batch_norm2d_forward_infer(const stream& s, const shape& size, std::size_t batch, const T* x,
                                          const float* gamma, const float* beta, const float* running_mean,
                                          const float* running_var, float epsilon, const T* residual, bool relu, T* y) {
  const std::size_t rows = batch * size.pixels();
  if (rows * size.channels == 0) return;
  detail::check_norm("kd::cuda::batch_norm2d_forward_infer", size);
  detail::with_column_width(detail::in_fours(size.channels, x, residual, y), [&](auto width) {
    const auto t = detail::norm_elementwise_tiling(rows, size.channels, width);
    launch(s, "norm_normalise", detail::tiling_blocks(t), detail::tiling_threads(t), 0,
           kernel::norm_normalise<T, width, false>, t, x, gamma, beta, running_mean, running_var, epsilon, residual,
           relu, y);
  });
}

/// Backward pass of batch_norm2d_forward_train; every output is overwritten. One launch up to 2,048 values per channel,
/// else three.
/// @param x, y the input and, with relu, the output of the forward pass, [N][H][W][C]
/// @param dy gradient of y
/// @param d_residual receives dy where y > 0, the gradient of the residual; may be dy or null
/// @param dx may be dy, not d_residual; or null where it is not wanted
/// @param d_gamma, d_beta [C]
/// @param scratch batch_norm2d_scratch(s, batch) floats
template <class T>
KD_HIDDEN void batch_norm2d_backward(const stream& s, const shape& size, std::size_t batch, const T* x, const T* y,
                                     const T* dy, const float* gamma, const float* saved_mean,
                                     const float* saved_inv_std, bool relu, T* d_residual, T* dx, float* d_gamma,
                                     float* d_beta, float* scratch) {
  const std::size_t rows = batch * size.pixels();
  if (rows * size.channels == 0) return;
  detail::check_norm("kd::cuda::batch_norm2d_backward", size);
  const T* out = relu ? y : nullptr;
  detail::with_column_width(detail::in_fours(size.channels, x, out, dy, d_residual, dx), [&](auto width) {
    if (rows <= detail::norm_one_block_rows) {
      const auto t = detail::norm_one_block_tiling(rows, size.channels, width);
      launch(s, "norm_backward_one_block", detail::tiling_blocks(t), detail::tiling_threads(t), 0,
             kernel::norm_backward_one_block<T, width>, t, x, out, dy, gamma, saved_mean, saved_inv_std, relu,
             d_residual, dx, d_gamma, d_beta);
      return;
    }
    const auto t = detail::norm_sum_tiling(rows, size.channels, width);
    launch(s, "norm_gradient_sums", detail::tiling_blocks(t), kernel::norm_threads, 0,
           kernel::norm_gradient_sums<T, width>, t, x, out, dy, saved_mean, relu, d_residual, scratch);
    launch(s, "norm_finish_gradient_sums", blocks_for(size.channels, kernel::norm_threads / kernel::warp_size),
           kernel::norm_threads, 0, kernel::norm_finish_gradient_sums<kernel::norm_threads>, t, scratch, saved_inv_std,
           d_gamma, d_beta);
    if (dx == nullptr) return;
    // The first pass has left g in d_residual.
    const auto all = detail::norm_elementwise_tiling(rows, size.channels, width);
    launch(s, "norm_input_gradient", detail::tiling_blocks(all), detail::tiling_threads(all), 0,
           kernel::norm_input_gradient<T, width>, all, x, d_residual != nullptr ? nullptr : out,
           d_residual != nullptr ? d_residual : dy, gamma, saved_mean, saved_inv_std, d_gamma, d_beta, dx);
  });
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
