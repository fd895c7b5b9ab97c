/// The pieces of convolution + bias + relu + 2x2 max pooling: pooling tile by tile, and the gradients through the pool.
///
/// Three quarters of the gradient of the convolution's output are zeros, at places that differ from sample to sample.
/// Both gradients visit the others alone. With the input turned to [block][row][lane][column, channel], each pooled
/// value concerns kernel_h contiguous runs (kw, ci), whose place its winner among the four decides: it multiplies them
/// for the weights, and adds its multiple of the weights to them for the input.
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
  using integers = integers_of<Width>;
  for (std::size_t v = 0; v < lanes; v += Width) {
    vector_of<Width> best, here;
    load(best, window + v);
    integers winner = {};
    for (int q = 1; q < 4; ++q) {
      load(here, window + static_cast<std::size_t>(q) * position + v);
      const auto wins = (here > best) | (here != here);  // NaN wins and is never beaten, as in PyTorch
      best = wins ? here : best;
      winner = wins ? integers{} + q : winner;
    }
    const vector_of<Width> zero = {};
    const auto cut = best <= zero;
    best = cut ? zero : best;
    winner = cut ? integers{} + no_winner : winner;
    store(y + v, best);
    store_bytes<Width>(arg + v, winner);
  }
}

/// Floats of one row of taps (kw, ci), in whole vectors.
constexpr std::size_t tap_row(const conv2d_geometry& g) { return whole_vectors(g.kernel_w * g.in_channels); }

/// The input with its padding, lane by lane: [block][in_height + 2 * padding_h][lane][row].
struct lane_rows {
  std::size_t height, row;  // row: floats from one lane to the next; no whole vector of taps reaches beyond it

  explicit constexpr lane_rows(const conv2d_geometry& g)
      : height(g.in_height + 2 * g.padding_h),
        row(whole_vectors(std::max((g.in_width + 2 * g.padding_w) * g.in_channels,
                                   (g.out_width() - 1) * g.stride_w * g.in_channels + tap_row(g)))) {}
  constexpr std::size_t block() const { return height * lanes * row; }
};

constexpr std::size_t relu_pool_scratch(const conv2d_geometry& g, std::size_t blocks) {
  // Turning the last row reads up to 15 floats beyond it.
  return blocks * lane_rows(g).block() + 16 + g.out_channels * g.kernel_h * tap_row(g);
}

/// Turns x into rows per lane (see lane_rows), with zeros for padding.
template <std::size_t Width>
void spread_lanes(const parallel& threads, const conv2d_geometry& g, std::size_t blocks, const float* x, float* rows) {
  const lane_rows layout(g);
  const std::size_t values = g.in_width * g.in_channels;
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
    KD_UNROLL(16)
    for (std::size_t r = 0; r < Rows; ++r) {
      KD_UNROLL(16)
      for (std::size_t v = 0; v < columns; ++v) {
        vector_of<Width> here;
        load(here, at + r * row + v * Width);
        sum[r][v] += value * here;
      }
    }
  }
  KD_UNROLL(16)
  for (std::size_t r = 0; r < Rows; ++r) {
    KD_UNROLL(16)
    for (std::size_t v = 0; v < columns; ++v) {
      vector_of<Width> before;
      load(before, sums + r * sums_row + v * Width);
      store(sums + r * sums_row + v * Width, before + sum[r][v]);
    }
  }
}

/// rows at each winner's place += its value * taps, for the winners of lanes [begin, end) of every 16.
template <std::size_t Width, std::size_t Rows, std::size_t Vectors>
__attribute__((noinline, no_sanitize("undefined"))) void scatter_winners(const winners& w, std::size_t begin,
                                                                         std::size_t end, const float* taps,
                                                                         std::size_t taps_row, float* rows,
                                                                         std::size_t row) {
  constexpr std::size_t columns = Vectors * (16 / Width);
  vector_of<Width> tap[Rows][columns];
  KD_UNROLL(16)
  for (std::size_t r = 0; r < Rows; ++r) {
    KD_UNROLL(16)
    for (std::size_t v = 0; v < columns; ++v) load(tap[r][v], taps + r * taps_row + v * Width);
  }
  for (std::size_t first = 0; first < w.size; first += lanes)
    for (std::size_t e = first + begin; e < first + end; ++e) {
      const float value = w.value[e];
      float* at = rows + w.place[e];
      KD_UNROLL(16)
      for (std::size_t r = 0; r < Rows; ++r) {
        KD_UNROLL(16)
        for (std::size_t v = 0; v < columns; ++v) {
          vector_of<Width> sum;
          load(sum, at + r * row + v * Width);
          sum += value * tap[r][v];
          store(at + r * row + v * Width, sum);
        }
      }
    }
}

/// Vectors of 16 floats along (kw, ci) that add_winners and scatter_winners keep in registers for each of three rows.
template <std::size_t Width>
inline constexpr std::size_t most_tap_vectors = Width == 16  ? 3
                                                : Width == 8 ? 2
                                                             : 1;

/// Calls body.operator()<Rows, Vectors>(row, vector) for groups that cover kernel_h rows of `vectors` vectors of taps.
template <std::size_t Width, class Body>
void for_each_tap_group(std::size_t kernel_h, std::size_t vectors, const Body& body) {
  const auto along_row = [&]<std::size_t Rows>(std::size_t r, std::index_sequence<Rows>) {
    std::size_t v = 0;
    for (; v + most_tap_vectors<Width> <= vectors; v += most_tap_vectors<Width>)
      body.template operator()<Rows, most_tap_vectors<Width>>(r, v);
    if constexpr (most_tap_vectors < Width >> 1)
      for (; v < vectors; ++v) body.template operator()<Rows, 1>(r, v);
  };
  std::size_t r = 0;
  for (; r + 3 <= kernel_h; r += 3) along_row(r, std::index_sequence<3>{});
  for (; r < kernel_h; ++r) along_row(r, std::index_sequence<1>{});
}

/// Appends the 16 samples of one pooled value: dp where a winner exists, and the winner's window from `begin` on.
template <std::size_t Width>
inline void append_winners(winners& w, const float* dp, const std::uint8_t* arg, std::size_t begin,
                           std::size_t lane_step, std::size_t row_step, std::size_t column_step,
                           vector_of<Width> (&total)[lanes / Width]) {
  using integers = integers_of<Width>;
  for (std::size_t v = 0; v < lanes; v += Width) {
    vector_of<Width> value;
    load(value, dp + v);
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
    store(w.value + w.size + v, value);
    __builtin_memcpy(w.place + w.size + v, &place, sizeof(place));
  }
  w.size += lanes;
}

/// Windows along a pooled row that are worked off together: as many as keep their part of the rows in the L1 cache.
constexpr std::size_t windows_at_once(const conv2d_geometry& g) {
  const std::size_t column = lanes * (g.kernel_h + g.stride_h) * sizeof(float) * g.in_channels;
  return std::clamp<std::size_t>(24 * 1024 / (2 * g.stride_w * column), 2, winners::most / lanes);
}

/// Collects the winners of one output channel in windows [begin, end) of pooled row h of a block.
template <std::size_t Width>
void collect_winners(winners& w, const conv2d_geometry& g, std::size_t block, std::size_t h, std::size_t begin,
                     std::size_t end, std::size_t co, const float* dp, const std::uint8_t* arg,
                     vector_of<Width> (&total)[lanes / Width]) {
  const lane_rows layout(g);
  const std::size_t height = g.out_height() / 2, width = g.out_width() / 2;
  w.size = 0;
  for (std::size_t c = begin; c < end; ++c) {
    const std::size_t pooled = (((block * height + h) * width + c) * g.out_channels + co) * lanes;
    append_winners<Width>(w, dp + pooled, arg + pooled, c * 2 * g.stride_w * g.in_channels, layout.row,
                          g.stride_h * lanes * layout.row, g.stride_w * g.in_channels, total);
  }
}

/// dW and db of convolution + relu + pool from the gradient of the pooled output.
template <std::size_t Width>
void pooled_weight_gradient(const parallel& threads, const conv2d_geometry& g, std::size_t blocks, const float* x,
                            const float* dp, const std::uint8_t* arg, float* dw, float* db, float* scratch) {
  const lane_rows layout(g);
  const std::size_t taps = tap_row(g), height = g.out_height() / 2, width = g.out_width() / 2;
  const std::size_t step = windows_at_once(g), lane_row = lanes * layout.row;
  float* rows = scratch;
  float* all_sums = scratch + blocks * layout.block() + 16;  // [out_channels][kernel_h][taps]
  spread_lanes<Width>(threads, g, blocks, x, rows);
  threads.split(g.out_channels, [&](std::size_t first, std::size_t last, std::size_t) {
    std::fill_n(all_sums + first * g.kernel_h * taps, (last - first) * g.kernel_h * taps, 0.0f);
    if (db != nullptr) std::fill_n(db + first, last - first, 0.0f);
    winners w;
    for (std::size_t b = 0; b < blocks; ++b)
      for (std::size_t h = 0; h < height; ++h)
        for (std::size_t begin = 0; begin < width; begin += step)
          for (std::size_t co = first; co < last; ++co) {
            vector_of<Width> total[lanes / Width] = {};
            collect_winners<Width>(w, g, b, h, begin, std::min(width, begin + step), co, dp, arg, total);
            const float* from = rows + b * layout.block() + h * 2 * g.stride_h * lane_row;
            float* sums = all_sums + co * g.kernel_h * taps;
            for_each_tap_group<Width>(g.kernel_h, taps / 16,
                                      [&]<std::size_t Rows, std::size_t Vectors>(std::size_t r, std::size_t v) {
                                        add_winners<Width, Rows, Vectors>(w, from + r * lane_row + v * 16, lane_row,
                                                                          sums + r * taps + v * 16, taps);
                                      });
            if (db != nullptr) db[co] += sum_of_lanes<Width>(total);
          }
    const std::size_t run = g.kernel_w * g.in_channels;
    for (std::size_t i = first * g.kernel_h; i < last * g.kernel_h; ++i)
      std::copy_n(all_sums + i * taps, run, dw + i * run);
  });
}

/// x (+)= the rows per lane, without their padding: the reverse of spread_lanes.
template <std::size_t Width>
void gather_lanes(const parallel& threads, const conv2d_geometry& g, std::size_t blocks, const float* rows,
                  bool accumulate, float* x) {
  const lane_rows layout(g);
  const std::size_t values = g.in_width * g.in_channels;
  threads.for_each(blocks * g.in_height, [&](std::size_t i) {
    const std::size_t row = i / g.in_height * layout.height + i % g.in_height + g.padding_h;
    const float* from = rows + row * lanes * layout.row + g.padding_w * g.in_channels;
    float* to = x + i * values * lanes;
    for (std::size_t j = 0; j < values; j += 16) {
      alignas(64) float turned[16 * lanes];
      transpose_16x16<Width>(from + j, layout.row, 16, turned, lanes);
      for (std::size_t k = 0; k < std::min<std::size_t>(16, values - j) * lanes; k += Width) {
        vector_of<Width> sum, before;
        load(sum, turned + k);
        if (accumulate) {
          load(before, to + j * lanes + k);
          sum += before;
        }
        store(to + j * lanes + k, sum);
      }
    }
  });
}

/// dx of convolution + relu + pool from the gradient of the pooled output.
template <std::size_t Width>
void pooled_data_gradient(const parallel& threads, const conv2d_geometry& g, std::size_t blocks, const float* dp,
                          const std::uint8_t* arg, const float* weight, bool accumulate, float* dx, float* scratch) {
  const lane_rows layout(g);
  const std::size_t taps = tap_row(g), height = g.out_height() / 2, width = g.out_width() / 2;
  const std::size_t step = windows_at_once(g), lane_row = lanes * layout.row, run = g.kernel_w * g.in_channels;
  float* rows = scratch;
  float* padded = scratch + blocks * layout.block() + 16;  // the weights, [out_channels][kernel_h][taps]
  for (std::size_t i = 0; i < g.out_channels * g.kernel_h; ++i) {
    std::copy_n(weight + i * run, run, padded + i * taps);
    std::fill_n(padded + i * taps + run, taps - run, 0.0f);
  }
  std::fill_n(rows + blocks * layout.block(), 16, 0.0f);
  // No two samples share a float of the rows, so that half a block is a share of its own.
  constexpr std::size_t half = lanes / 2;
  threads.for_each(blocks * 2, [&](std::size_t i) {
    const std::size_t b = i / 2, lane = i % 2 * half;
    for (std::size_t r = 0; r < layout.height; ++r)
      std::fill_n(rows + b * layout.block() + r * lane_row + lane * layout.row, half * layout.row, 0.0f);
    winners w;
    for (std::size_t h = 0; h < height; ++h)
      for (std::size_t begin = 0; begin < width; begin += step)
        for (std::size_t co = 0; co < g.out_channels; ++co) {
          vector_of<Width> total[lanes / Width] = {};
          collect_winners<Width>(w, g, b, h, begin, std::min(width, begin + step), co, dp, arg, total);
          float* to = rows + b * layout.block() + h * 2 * g.stride_h * lane_row;
          const float* from = padded + co * g.kernel_h * taps;
          for_each_tap_group<Width>(
              g.kernel_h, taps / 16, [&]<std::size_t Rows, std::size_t Vectors>(std::size_t r, std::size_t v) {
                scatter_winners<Width, Rows, Vectors>(w, lane, lane + half, from + r * taps + v * 16, taps,
                                                      to + r * lane_row + v * 16, lane_row);
              });
        }
  });
  gather_lanes<Width>(threads, g, blocks, rows, accumulate, dx);
}

}  // namespace kd::inline KD_ABI::cpu::detail
