/// The weight gradient of a convolution as matrix products, and how the convolutions share out their work.
///
/// dW sums over samples, so one operand has to carry channels in its vectors instead of samples: it is transposed
/// lane by lane, in scratch, and the other one is broadcast from where it lies. Where the input channels fill vectors
/// the input is transposed and the products are rows of dW; otherwise (the 3 channels of an image) the gradient of the
/// output is, and the products are rows of the transpose of dW, whose (kw, ci) are contiguous in x.
#pragma once

#include <algorithm>
#include <cstddef>

#include "kd/core/abi.hpp"
#include "kd/core/shape.hpp"
#include "kd/cpu/matrix.hpp"
#include "kd/cpu/parallel.hpp"
#include "kd/cpu/simd.hpp"

namespace kd::inline KD_ABI::cpu::detail {

/// The threads worth waking for a pass of a convolution: one where it has fewer than a million products, about 20 us.
constexpr parallel team_for(const parallel& threads, const conv2d_geometry& g, std::size_t batch) {
  return parallel{g.weights() * g.out().pixels() * batch < 1'000'000 ? 1 : threads.threads};
}

/// A share of a convolution's result: some rows (channels) of one pixel of a few consecutive blocks.
struct tile {
  std::size_t block, blocks, pixel, row, rows;
};

/// Calls body(tile) for every pixel of every group of blocks; rows are cut only where threads would be left idle.
template <std::size_t Width, class Body>
void for_each_tile(const parallel& threads, std::size_t blocks, std::size_t pixels, std::size_t rows,
                   const Body& body) {
  const std::size_t groups = (blocks + vectors_at_once<Width> - 1) / vectors_at_once<Width>;
  const auto team = static_cast<std::size_t>(std::max(threads.threads, 1));
  const std::size_t whole = groups * pixels;
  const std::size_t cuts = whole % team == 0 || whole >= 16 * team ? 1 : std::min(team, std::max<std::size_t>(rows, 1));
  threads.for_each(whole * cuts, [&](std::size_t i) {
    const std::size_t cut = i % cuts, pixel = i / cuts % pixels, group = i / cuts / pixels;
    const std::size_t block = balanced_begin(blocks, groups, group), row = balanced_begin(rows, cuts, cut);
    body(tile{block, balanced_begin(blocks, groups, group + 1) - block, pixel, row,
              balanced_begin(rows, cuts, cut + 1) - row});
  });
}

/// The taps k = first, first + stride, ... < end that carry input position `in` to an output out(k) along one axis.
struct meeting_taps {
  std::size_t position, stride, first, end;

  constexpr meeting_taps(std::size_t in, std::size_t out_size, std::size_t kernel, std::size_t step,
                         std::size_t padding)
      : position(in + padding), stride(step), first(position % step), end(std::min(kernel, position + 1)) {
    const std::size_t furthest = (out_size - 1) * step;
    while (first < end && position - first > furthest) first += step;
  }
  constexpr std::size_t count() const { return first < end ? (end - first + stride - 1) / stride : 0; }
  constexpr std::size_t out(std::size_t k) const { return (position - k) / stride; }
};

/// The output positions along one axis at which tap k meets the input.
constexpr range live_outputs(std::size_t k, std::size_t in_size, std::size_t out_size, std::size_t stride,
                             std::size_t padding) {
  const std::size_t begin = padding > k ? (padding - k + stride - 1) / stride : 0;
  const std::size_t end = in_size + padding > k ? std::min(out_size, (in_size + padding - k - 1) / stride + 1) : 0;
  return begin < end ? range{begin, end} : range{0, 0};
}

/// Channels cut into panels of at most vectors_at_once vectors of 16; the last vector may be partly beyond them.
template <std::size_t Width>
struct channel_panels {
  std::size_t vectors, count;
  explicit constexpr channel_panels(std::size_t channels)
      : vectors((channels + 15) / 16), count((vectors + vectors_at_once<Width> - 1) / vectors_at_once<Width>) {}
  constexpr std::size_t begin(std::size_t panel) const { return balanced_begin(vectors, count, panel); }
  constexpr std::size_t size(std::size_t panel) const { return begin(panel + 1) - begin(panel); }
};

constexpr std::size_t whole_vectors(std::size_t channels) { return (channels + 15) / 16 * 16; }

constexpr bool transposes_input(const conv2d_geometry& g) { return g.in_channels % 16 == 0; }

constexpr std::size_t weight_gradient_scratch(const conv2d_geometry& g, std::size_t blocks) {
  if (transposes_input(g)) return blocks * lanes * g.in().size();
  const std::size_t padded = whole_vectors(g.out_channels);
  return blocks * lanes * g.out().pixels() * padded + g.kernel_h * g.kernel_w * g.in_channels * padded;
}

/// to: [panel][place][lane][channels of the panel] from [place][channel][lane], where a place is a pixel of a block.
/// Channels that fill up the last vector are 0.
template <std::size_t Width>
void transpose_places(const parallel& threads, std::size_t places, std::size_t channels, const float* from, float* to) {
  const channel_panels<Width> panels(channels);
  threads.for_each(places, [&](std::size_t place) {
    for (std::size_t p = 0; p < panels.count; ++p) {
      const std::size_t width = panels.size(p) * 16;
      float* here = to + panels.begin(p) * 16 * places * lanes + place * lanes * width;
      for (std::size_t v = 0; v < panels.size(p); ++v) {
        const std::size_t channel = (panels.begin(p) + v) * 16;
        transpose_16x16<Width>(from + (place * channels + channel) * lanes, lanes,
                               std::min<std::size_t>(16, channels - channel), here + v * 16, width);
      }
    }
  });
}

/// The sum of 16 lanes, halves added to halves, so that every width rounds alike.
template <std::size_t Width>
float sum_of_lanes(const vector_of<Width> (&vectors)[lanes / Width]) {
  float values[lanes];
  for (std::size_t v = 0; v < lanes / Width; ++v) store(values + v * Width, vectors[v]);
  for (std::size_t half = lanes / 2; half > 0; half /= 2)
    for (std::size_t l = 0; l < half; ++l) values[l] += values[l + half];
  return values[0];
}

/// db[c] = sum of dy over all samples and pixels.
template <std::size_t Width>
void bias_gradient(const parallel& threads, std::size_t blocks, std::size_t pixels, std::size_t channels,
                   const float* dy, float* db) {
  constexpr std::size_t natives = lanes / Width, together = 4;
  threads.for_each((channels + together - 1) / together, [&](std::size_t group) {
    const std::size_t first = group * together, count = std::min(together, channels - first);
    vector_of<Width> total[together][natives] = {};
    for (std::size_t b = 0; b < blocks; ++b) {
      vector_of<Width> sum[together][natives] = {};  // one block's: long sums of sums lose fewer bits
      for (std::size_t p = 0; p < pixels; ++p) {
        const float* from = dy + ((b * pixels + p) * channels + first) * lanes;
        KD_UNROLL(4)
        for (std::size_t c = 0; c < together; ++c)
          for (std::size_t v = 0; v < natives && c < count; ++v) {
            vector_of<Width> here;
            load(here, from + c * lanes + v * Width);
            sum[c][v] += here;
          }
      }
      for (std::size_t c = 0; c < together; ++c)
        for (std::size_t v = 0; v < natives; ++v) total[c][v] += sum[c][v];
    }
    for (std::size_t c = 0; c < count; ++c) db[first + c] = sum_of_lanes<Width>(total[c]);
  });
}

/// The output rows of all blocks, cut into passes: the sums of one pass go through every tap before the next pass,
/// while what they read is in the L2 cache; a pass is not so short that reading and writing dW would tell.
struct row_passes {
  std::size_t height, rows, count;

  constexpr row_passes(const conv2d_geometry& g, std::size_t blocks)
      : height(g.out_height()), rows(blocks * g.out_height()), count(0) {
    const std::size_t width = g.out_width(), channels = g.out_channels + g.stride_h * g.stride_w * g.in_channels;
    const std::size_t fit = 512 * 1024 / (width * lanes * channels * sizeof(float));
    const std::size_t least = (16 + width - 1) / width;
    const std::size_t length = std::max<std::size_t>(std::max(fit, least), 1);
    count = (rows + length - 1) / length;
  }
  /// Calls body(block, oh) for the rows of a pass that are in `live`.
  template <class Body>
  constexpr void for_each(std::size_t pass, const range& live, const Body& body) const {
    for (std::size_t r = balanced_begin(rows, count, pass); r < balanced_begin(rows, count, pass + 1); ++r)
      if (r % height >= live.begin && r % height < live.end) body(r / height, r % height);
  }
  constexpr std::size_t live_rows(std::size_t pass, const range& live) const {
    std::size_t found = 0;
    for_each(pass, live, [&](std::size_t, std::size_t) { ++found; });
    return found;
  }
};

/// Into how many parts the rows of a weight gradient are cut. Taps differ in how often they meet the image, so that
/// every thread takes some rows of all taps where there are enough of them.
template <std::size_t Width>
std::size_t row_cuts(const parallel& threads, std::size_t items, std::size_t rows) {
  const auto team = static_cast<std::size_t>(std::max(threads.threads, 1));
  if (rows >= 8 * team) return team;
  return items % team == 0 || items >= 16 * team ? 1 : std::min(rows, team);
}

/// dW with the input transposed: rows are output channels, vectors are input channels.
template <std::size_t Width>
void weight_gradient_from_input(const parallel& threads, const conv2d_geometry& g, std::size_t blocks, const float* x,
                                const float* dy, float* dw, float* scratch, bool zero_dead_taps) {
  const std::size_t in_pixels = g.in().pixels(), out_pixels = g.out().pixels(), places = blocks * in_pixels;
  const std::size_t out_width = g.out_width(), taps = g.kernel_h * g.kernel_w;
  transpose_places<Width>(threads, places, g.in_channels, x, scratch);
  const channel_panels<Width> panels(g.in_channels);
  const std::size_t cuts = row_cuts<Width>(threads, taps * panels.count, g.out_channels);
  const row_passes passes(g, blocks);
  threads.split(taps * panels.count * cuts, [&](std::size_t begin, std::size_t end, std::size_t) {
    for (std::size_t pass = 0; pass < passes.count; ++pass)
      for (std::size_t item = begin; item < end; ++item) {
        const std::size_t panel = item % panels.count, tap = item / panels.count % taps,
                          cut = item / panels.count / taps;
        const std::size_t row = balanced_begin(g.out_channels, cuts, cut);
        const std::size_t rows = balanced_begin(g.out_channels, cuts, cut + 1) - row;
        const std::size_t kh = tap / g.kernel_w, kw = tap % g.kernel_w, width = panels.size(panel) * 16;
        const range oh = live_outputs(kh, g.in_height, g.out_height(), g.stride_h, g.padding_h);
        const range ow = live_outputs(kw, g.in_width, out_width, g.stride_w, g.padding_w);
        const bool dead = oh.size() * ow.size() == 0;
        if (dead && (pass > 0 || !zero_dead_taps)) continue;
        const std::size_t terms = passes.live_rows(pass, oh) * ow.size() * lanes;
        const float* xt = scratch + panels.begin(panel) * 16 * places * lanes;
        product<Width> sums({lanes, 1, width, 16, taps * g.in_channels, 16}, rows, panels.size(panel), terms,
                            dw + (row * taps + tap) * g.in_channels + panels.begin(panel) * 16,
                            {pass > 0, nullptr, false});
        passes.for_each(pass, dead ? range{} : oh, [&](std::size_t b, std::size_t h) {
          for (std::size_t w = ow.begin; w < ow.end; ++w) {
            const std::size_t ih = h * g.stride_h + kh - g.padding_h, iw = w * g.stride_w + kw - g.padding_w;
            sums.add(dy + ((b * out_pixels + h * out_width + w) * g.out_channels + row) * lanes,
                     xt + (b * in_pixels + ih * g.in_width + iw) * lanes * width, lanes);
          }
        });
        sums.finish();
      }
  });
}

/// dw[column][row] = sums[row][column] for `rows` rows of whole vectors of columns.
template <std::size_t Width>
void transpose_sums(const parallel& threads, std::size_t rows, std::size_t columns, const float* sums, float* dw) {
  const std::size_t padded = whole_vectors(columns);
  threads.for_each(padded / 16, [&](std::size_t v) {
    for (std::size_t r = 0; r < rows; r += 16) {
      alignas(64) float turned[16 * 16];
      const std::size_t height = std::min<std::size_t>(16, rows - r);
      transpose_16x16<Width>(sums + r * padded + v * 16, padded, height, turned, 16);
      for (std::size_t c = 0; c < 16 && v * 16 + c < columns; ++c)
        std::copy_n(turned + c * 16, height, dw + (v * 16 + c) * rows + r);
    }
  });
}

/// dW with the gradient of the output transposed: rows are (kw, ci), vectors are output channels.
template <std::size_t Width>
void weight_gradient_from_output(const parallel& threads, const conv2d_geometry& g, std::size_t blocks, const float* x,
                                 const float* dy, float* dw, float* scratch) {
  const std::size_t in_pixels = g.in().pixels(), out_pixels = g.out().pixels(), places = blocks * out_pixels;
  const std::size_t out_width = g.out_width(), padded = whole_vectors(g.out_channels);
  float* sums = scratch;  // [kernel_h][kernel_w * in_channels][padded]
  float* dyt = scratch + g.kernel_h * g.kernel_w * g.in_channels * padded;
  transpose_places<Width>(threads, places, g.out_channels, dy, dyt);
  const channel_panels<Width> panels(g.out_channels);
  const std::size_t all_rows = g.kernel_w * g.in_channels;
  const std::size_t cuts = row_cuts<Width>(threads, g.kernel_h * panels.count, all_rows);
  const row_passes passes(g, blocks);
  threads.split(g.kernel_h * panels.count * cuts, [&](std::size_t begin, std::size_t end, std::size_t) {
    for (std::size_t item = begin; item < end; ++item) {
      const std::size_t panel = item % panels.count, kh = item / panels.count % g.kernel_h;
      const std::size_t cut = item / panels.count / g.kernel_h;
      const std::size_t row_begin = balanced_begin(all_rows, cuts, cut),
                        row_end = balanced_begin(all_rows, cuts, cut + 1);
      for (std::size_t r = row_begin; r < row_end; ++r)
        std::fill_n(sums + (kh * all_rows + r) * padded + panels.begin(panel) * 16, panels.size(panel) * 16, 0.0f);
    }
    for (std::size_t pass = 0; pass < passes.count; ++pass)
      for (std::size_t item = begin; item < end; ++item) {
        const std::size_t panel = item % panels.count, kh = item / panels.count % g.kernel_h;
        const std::size_t cut = item / panels.count / g.kernel_h;
        const std::size_t row_begin = balanced_begin(all_rows, cuts, cut);
        const std::size_t row_end = balanced_begin(all_rows, cuts, cut + 1);
        const std::size_t width = panels.size(panel) * 16;
        const range oh = live_outputs(kh, g.in_height, g.out_height(), g.stride_h, g.padding_h);
        const std::size_t live = passes.live_rows(pass, oh);
        const float* here = dyt + panels.begin(panel) * 16 * places * lanes;
        for (std::size_t ow = 0, next = 0; ow < out_width && live > 0; ow = next) {
          // Output columns that meet the same taps are summed together.
          const range kw = live_taps(ow, g.in_width, g.kernel_w, g.stride_w, g.padding_w);
          for (next = ow + 1; next < out_width; ++next) {
            const range other = live_taps(next, g.in_width, g.kernel_w, g.stride_w, g.padding_w);
            if (other.begin != kw.begin || other.end != kw.end) break;
          }
          const std::size_t low = std::max(row_begin, kw.begin * g.in_channels);
          const std::size_t high = std::min(row_end, kw.end * g.in_channels);
          if (low >= high) continue;
          product<Width> out({lanes, 1, width, 16, padded, 16}, high - low, panels.size(panel),
                             live * (next - ow) * lanes,
                             sums + (kh * all_rows + low) * padded + panels.begin(panel) * 16, {true, nullptr, false});
          passes.for_each(pass, oh, [&](std::size_t b, std::size_t h) {
            for (std::size_t w = ow; w < next; ++w) {
              const std::size_t ih = h * g.stride_h + kh - g.padding_h;
              // Row 0 is tap kw = 0, which may lie left of the image; row `low` does not.
              const float* column = x + (b * in_pixels + ih * g.in_width) * g.in_channels * lanes +
                                    (w * g.stride_w * g.in_channels + low - g.padding_w * g.in_channels) * lanes;
              out.add(column, here + (b * out_pixels + h * out_width + w) * lanes * width, lanes);
            }
          });
          out.finish();
        }
      }
  });
  transpose_sums<Width>(threads, g.kernel_h * all_rows, g.out_channels, sums, dw);
}

}  // namespace kd::inline KD_ABI::cpu::detail
