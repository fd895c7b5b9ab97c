/// The pieces of convolution + bias + relu + 2x2 max pooling: pooling tile by tile, and the gradients through the pool.
///
/// Three quarters of the gradient of the convolution's output are zeros, at places that differ from sample to sample.
/// The weight gradient visits the others alone: with the input turned to [block][row][lane][column, channel], each
/// pooled value multiplies kernel_h contiguous runs (kw, ci), whose place its winner among the four decides.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kd/core/abi.hpp"
#include "kd/core/shape.hpp"
#include "kd/cpu/detail/conv2d_weight.hpp"
#include "kd/cpu/matrix.hpp"
#include "kd/cpu/parallel.hpp"
#include "kd/cpu/simd.hpp"

namespace kd::inline KD_ABI::cpu::detail {

/// The mark of a pooled value that relu made 0: none of the four positions receives its gradient.
inline constexpr int no_winner = 4;

/// y and arg of 16 samples from the four conv outputs at `window`, `position` floats apart.
template <std::size_t Width>
inline void relu_pool(const float* window, std::size_t position, float* y, std::uint8_t* arg) {
  using integers = typename native<Width>::integers;
  for (std::size_t v = 0; v < lanes; v += Width) {
    vector_of<Width> best, here;
    load<Width>(best, window + v);
    integers winner = {};
    for (int q = 1; q < 4; ++q) {
      load<Width>(here, window + static_cast<std::size_t>(q) * position + v);
      const auto wins = (here > best) | (here != here);  // NaN wins and is never beaten, as in PyTorch
      best = wins ? here : best;
      winner = wins ? integers{} + q : winner;
    }
    const vector_of<Width> zero = {};
    const auto cut = best <= zero;
    best = cut ? zero : best;
    winner = cut ? integers{} + no_winner : winner;
    store<Width>(y + v, best);
    store_bytes<Width>(arg + v, winner);
  }
}

/// The input with its padding, lane by lane: [block][in_height + 2 * padding_h][lane][row].
struct lane_rows {
  std::size_t height, row;  // row: floats from one lane to the next

  explicit constexpr lane_rows(const conv2d_geometry& g)
      : height(g.in_height + 2 * g.padding_h), row(whole_vectors((g.in_width + 2 * g.padding_w) * g.in_channels)) {}
  constexpr std::size_t block() const { return height * lanes * row; }
};

/// Floats of one row of taps (kw, ci) in the sums, and of all the sums of one output channel.
constexpr std::size_t tap_row(const conv2d_geometry& g) { return whole_vectors(g.kernel_w * g.in_channels); }

constexpr std::size_t relu_pool_scratch(const conv2d_geometry& g, std::size_t blocks) {
  // The last rows are read in whole vectors, up to 15 floats further than they go.
  const std::size_t sparse = blocks * lane_rows(g).block() + tap_row(g) + 16 + g.out_channels * g.kernel_h * tap_row(g);
  return std::max(sparse, blocks * lanes * g.out().size());
}

/// Turns x into rows per lane (see lane_rows), with zeros for padding.
template <std::size_t Width>
void spread_lanes(const parallel& threads, const conv2d_geometry& g, std::size_t blocks, const float* x, float* rows) {
  const lane_rows layout(g);
  const std::size_t values = g.in_width * g.in_channels;
  std::fill_n(rows + blocks * layout.block(), tap_row(g) + 16, 0.0f);
  threads.for_each(blocks * layout.height, [&](std::size_t i) {
    const std::size_t block = i / layout.height, padded = i % layout.height;
    float* to = rows + i * lanes * layout.row;
    std::fill_n(to, lanes * layout.row, 0.0f);
    if (padded < g.padding_h || padded - g.padding_h >= g.in_height) return;
    const float* from = x + (block * g.in_height + padded - g.padding_h) * values * lanes;
    to += g.padding_w * g.in_channels;
    for (std::size_t j = 0; j < values; j += 16) {
      const std::size_t count = std::min<std::size_t>(16, values - j);
      if (count == 16) {
        transpose_16x16<Width>(from + j * lanes, lanes, 16, to + j, layout.row);
      } else {
        for (std::size_t lane = 0; lane < lanes; ++lane)
          for (std::size_t k = 0; k < count; ++k) to[lane * layout.row + j + k] = from[(j + k) * lanes + lane];
      }
    }
  });
}

/// Pooled gradients of one output channel, `size` of them: each value, and where its window begins in the rows.
struct winners {
  static constexpr std::size_t most = 256;
  alignas(64) float value[most];
  alignas(64) std::int32_t place[most];
  std::size_t size = 0;
};

/// sums[r][v] += sum over winners of value * the 16 floats of row r, vector v at its place; r < Rows, v < Vectors.
template <std::size_t Width, std::size_t Rows, std::size_t Vectors>
__attribute__((noinline, no_sanitize("undefined"))) void add_winners(const winners& w, const float* rows,
                                                                     std::size_t row, float* sums,
                                                                     std::size_t sums_row) {
  constexpr std::size_t columns = Vectors * (16 / Width);
  vector_of<Width> sum[Rows][columns] = {};
  for (std::size_t e = 0; e < w.size; ++e) {
    const float value = w.value[e];
    const float* at = rows + w.place[e];
#pragma GCC unroll 16
    for (std::size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
      for (std::size_t v = 0; v < columns; ++v) {
        vector_of<Width> here;
        load<Width>(here, at + r * row + v * Width);
        sum[r][v] += value * here;
      }
    }
  }
#pragma GCC unroll 16
  for (std::size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
    for (std::size_t v = 0; v < columns; ++v) {
      vector_of<Width> before;
      load<Width>(before, sums + r * sums_row + v * Width);
      store<Width>(sums + r * sums_row + v * Width, before + sum[r][v]);
    }
  }
}

/// Accumulators of 16 floats along (kw, ci) that add_winners keeps in registers for each of three rows.
template <std::size_t Width>
inline constexpr std::size_t most_tap_vectors = Width == 16  ? 3
                                                : Width == 8 ? 2
                                                             : 1;

/// sums[kernel_h][vectors * 16] += the products of all winners with their windows.
template <std::size_t Width>
void add_winners(const winners& w, const float* rows, std::size_t row, std::size_t kernel_h, std::size_t vectors,
                 float* sums) {
  const auto add = [&]<std::size_t Rows>(std::index_sequence<Rows>, std::size_t r) {
    for (std::size_t v = 0; v < vectors;) {
      const float* from = rows + r * row + v * 16;
      float* to = sums + (r * vectors + v) * 16;
      const std::size_t here = std::min(vectors - v, most_tap_vectors<Width>);
      if constexpr (most_tap_vectors<Width> >= 3)
        if (here == 3) add_winners<Width, Rows, 3>(w, from, row, to, vectors * 16);
      if constexpr (most_tap_vectors<Width> >= 2)
        if (here == 2) add_winners<Width, Rows, 2>(w, from, row, to, vectors * 16);
      if (here == 1) add_winners<Width, Rows, 1>(w, from, row, to, vectors * 16);
      v += here;
    }
  };
  std::size_t r = 0;
  for (; r + 3 <= kernel_h; r += 3) add(std::index_sequence<3>{}, r);
  for (; r < kernel_h; ++r) add(std::index_sequence<1>{}, r);
}

/// Appends the 16 samples of one pooled value: dp where a winner exists, and the winner's window from `begin` on.
template <std::size_t Width>
inline void append_winners(winners& w, const float* dp, const std::uint8_t* arg, std::size_t begin,
                           std::size_t lane_step, std::size_t row_step, std::size_t column_step,
                           vector_of<Width> (&total)[lanes / Width]) {
  using integers = typename native<Width>::integers;
  for (std::size_t v = 0; v < lanes; v += Width) {
    vector_of<Width> value;
    load<Width>(value, dp + v);
    integers winner, lane;
    load_bytes<Width>(winner, arg + v);
    count_up<Width>(lane, static_cast<std::int32_t>(v));
    const vector_of<Width> zero = {};
    const auto lost = winner == no_winner;
    value = lost ? zero : value;
    total[v / Width] += value;
    const integers place = static_cast<std::int32_t>(begin) + lane * static_cast<std::int32_t>(lane_step) +
                           ((winner >> 1) & 1) * static_cast<std::int32_t>(row_step) +
                           (winner & 1) * static_cast<std::int32_t>(column_step);
    store<Width>(w.value + w.size + v, value);
    __builtin_memcpy(w.place + w.size + v, &place, sizeof(place));
  }
  w.size += lanes;
}

/// dW and db of convolution + relu + pool from the gradient of the pooled output.
template <std::size_t Width>
void pooled_weight_gradient(const parallel& threads, const conv2d_geometry& g, std::size_t blocks, const float* x,
                            const float* dp, const std::uint8_t* arg, float* dw, float* db, float* scratch) {
  const lane_rows layout(g);
  const std::size_t taps = tap_row(g), height = g.out_height() / 2, width = g.out_width() / 2;
  float* rows = scratch;
  float* all_sums = scratch + blocks * layout.block() + taps + 16;
  spread_lanes<Width>(threads, g, blocks, x, rows);
  // As many windows at a time as keep their part of the rows in the L1 cache.
  const std::size_t window_row = lanes * (g.kernel_h + g.stride_h) * sizeof(float) * g.in_channels;
  const std::size_t fit = 24 * 1024 / std::max<std::size_t>(2 * g.stride_w * window_row, 1);
  const std::size_t step = std::clamp<std::size_t>(fit, 2, winners::most / lanes);
  threads.split(g.out_channels, [&](std::size_t first, std::size_t last, std::size_t) {
    std::fill_n(all_sums + first * g.kernel_h * taps, (last - first) * g.kernel_h * taps, 0.0f);
    if (db != nullptr) std::fill_n(db + first, last - first, 0.0f);
    winners w;
    for (std::size_t b = 0; b < blocks; ++b)
      for (std::size_t h = 0; h < height; ++h)
        for (std::size_t begin = 0; begin < width; begin += step)
          for (std::size_t co = first; co < last; ++co) {
            vector_of<Width> total[lanes / Width] = {};
            w.size = 0;
            for (std::size_t c = begin; c < std::min(width, begin + step); ++c) {
              const std::size_t pooled = (((b * height + h) * width + c) * g.out_channels + co) * lanes;
              append_winners<Width>(w, dp + pooled, arg + pooled, c * 2 * g.stride_w * g.in_channels, layout.row,
                                    g.stride_h * lanes * layout.row, g.stride_w * g.in_channels, total);
            }
            add_winners<Width>(w, rows + (b * layout.height + h * 2 * g.stride_h) * lanes * layout.row,
                               lanes * layout.row, g.kernel_h, taps / 16, all_sums + co * g.kernel_h * taps);
            if (db != nullptr) db[co] += sum_of_lanes<Width>(total);
          }
    const std::size_t run = g.kernel_w * g.in_channels;
    for (std::size_t i = first * g.kernel_h; i < last * g.kernel_h; ++i)
      std::copy_n(all_sums + i * taps, run, dw + i * run);
  });
}

/// The gradient of the convolution's output: dp at each winner, 0 elsewhere.
template <std::size_t Width>
void unpool(const parallel& threads, const conv2d_geometry& g, std::size_t blocks, const float* dp,
            const std::uint8_t* arg, float* dy) {
  const std::size_t height = g.out_height(), width = g.out_width(), pooled_width = width / 2;
  threads.for_each(blocks * height, [&](std::size_t i) {
    const std::size_t block = i / height, oh = i % height;
    for (std::size_t ow = 0; ow < width; ++ow) {
      float* to = dy + (i * width + ow) * g.out_channels * lanes;
      if (oh / 2 >= height / 2 || ow / 2 >= pooled_width) {  // an odd last row or column takes no part in the pool
        std::fill_n(to, g.out_channels * lanes, 0.0f);
        continue;
      }
      const int position = static_cast<int>(oh % 2 * 2 + ow % 2);
      const std::size_t pooled = ((block * (height / 2) + oh / 2) * pooled_width + ow / 2) * g.out_channels * lanes;
      for (std::size_t v = 0; v < g.out_channels * lanes; v += Width) {
        vector_of<Width> value;
        typename native<Width>::integers winner;
        load<Width>(value, dp + pooled + v);
        load_bytes<Width>(winner, arg + pooled + v);
        const auto won = winner == position;
        const vector_of<Width> zero = {};
        store<Width>(to + v, won ? value : zero);
      }
    }
  });
}

}  // namespace kd::inline KD_ABI::cpu::detail
