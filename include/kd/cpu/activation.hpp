/// Elementwise layers of the lane-blocked layout: relu, sum, dropout, and flatten, which only moves elements.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/random.hpp"
#include "kd/core/shape.hpp"
#include "kd/cpu/parallel.hpp"
#include "kd/cpu/rows.hpp"
#include "kd/cpu/simd.hpp"

namespace kd::inline KD_ABI::cpu {

namespace detail {

/// Calls vector_step(i) for whole vectors of [0, n) and scalar_step(i) for the elements that are left.
template <class VectorStep, class ScalarStep>
void elementwise(const parallel& par, std::size_t n, const VectorStep& vector_step, const ScalarStep& scalar_step) {
  const std::size_t vectors = n / native_width;
  par.split(vectors, [&](std::size_t begin, std::size_t end, std::size_t) {
    for (std::size_t i = begin; i < end; ++i) vector_step(i * native_width);
  });
  for (std::size_t i = vectors * native_width; i < n; ++i) scalar_step(i);
}

}  // namespace detail

/// y = max(x, 0); NaN stays NaN. y may be x.
/// @param n floats, padding lanes included
inline void relu_forward(const parallel& par, std::size_t n, const float* x, float* y) {
  detail::elementwise(
      par, n,
      [=](std::size_t i) {
        detail::floats value;
        detail::load(value, x + i);
        const detail::floats zero{};
        detail::store(y + i, value < zero ? zero : value);
      },
      [=](std::size_t i) { y[i] = x[i] < 0.0f ? 0.0f : x[i]; });
}

/// dx = dy where y > 0 (or NaN), else 0. dx may be dy.
/// @param y the output of relu_forward
inline void relu_backward(const parallel& par, std::size_t n, const float* y, const float* dy, float* dx) {
  detail::elementwise(
      par, n,
      [=](std::size_t i) {
        detail::floats value, gradient;
        detail::load(value, y + i);
        detail::load(gradient, dy + i);
        const detail::floats zero{};
        detail::store(dx + i, value <= zero ? zero : gradient);
      },
      [=](std::size_t i) { dx[i] = y[i] <= 0.0f ? 0.0f : dy[i]; });
}

/// y = a + b; y may be a, b or both (add(par, n, y, x, y) accumulates).
inline void add(const parallel& par, std::size_t n, const float* a, const float* b, float* y) {
  detail::elementwise(
      par, n,
      [=](std::size_t i) {
        detail::floats left, right;
        detail::load(left, a + i);
        detail::load(right, b + i);
        detail::store(y + i, left + right);
      },
      [=](std::size_t i) { y[i] = a[i] + b[i]; });
}

namespace detail {

/// The draws of one dropout layer in one step: element e of the batch is kept where uniform(word) >= p, with
/// word = random_at(seed, random_stream::dropout, e / 4, step, layer)[e % 4].
struct dropout_draw {
  std::uint64_t seed;
  std::uint32_t step, layer;
  std::uint32_t threshold;  // of the 24 random bits: kept from here on
  float scale;
};

/// Words of random_at for one element per lane, a vector of 64-bit integers below 2^32; a multiply of 32-bit halves.
inline constexpr std::size_t half_width = native_width / 2;
typedef std::uint64_t wide_words __attribute__((vector_size(half_width * sizeof(std::uint64_t))));
typedef std::int32_t half_ints __attribute__((vector_size(half_width * sizeof(std::int32_t))));

/// Four consecutive features, first % 4 == 0, of one block: keep[j][lane] is all-ones where feature first + j is kept.
/// Requires features % 4 == 0.
inline void keep_masks(const dropout_draw& draw, std::size_t features, std::size_t block, std::size_t first,
                       std::int32_t (&keep)[4][lanes]) {
  constexpr std::uint64_t low = 0xFFFFFFFFu;
  const std::uint64_t quarter = features / 4;
  for (std::size_t l = 0; l < lanes; l += half_width) {
    wide_words c0 = {};
    for (std::size_t i = 0; i < half_width; ++i) c0[i] = block * lanes + l + i;
    c0 = (c0 * quarter + first / 4) & low;
    wide_words c1 = wide_words{} + draw.step;
    wide_words c2 = wide_words{} + draw.layer;
    wide_words c3 = wide_words{} + static_cast<std::uint32_t>(random_stream::dropout);
    auto k0 = static_cast<std::uint32_t>(draw.seed);
    auto k1 = static_cast<std::uint32_t>(draw.seed >> 32);
    for (int round = 0; round < 10; ++round) {
      const wide_words p0 = c0 * std::uint64_t{0xD2511F53u};
      const wide_words p1 = c2 * std::uint64_t{0xCD9E8D57u};
      c0 = (p1 >> 32) ^ c1 ^ std::uint64_t{k0};
      c2 = (p0 >> 32) ^ c3 ^ std::uint64_t{k1};
      c1 = p1 & low;
      c3 = p0 & low;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    const wide_words words[4] = {c0, c1, c2, c3};
    for (std::size_t j = 0; j < 4; ++j)
      store(&keep[j][l], __builtin_convertvector((words[j] >> 8) >= std::uint64_t{draw.threshold}, half_ints));
  }
}

/// Features [begin, end), both multiples of 4, of one block.
inline void dropout_by_vector(const dropout_draw& draw, const shape& s, std::size_t block, std::size_t begin,
                              std::size_t end, const float* x, float* y) {
  std::int32_t keep[4][lanes];
  for_each_feature(s, begin, end, [&](std::size_t feature, std::size_t vector) {
    if (feature % 4 == 0) keep_masks(draw, s.size(), block, feature, keep);
    const std::size_t at = (block * s.size() + vector) * lanes;
    for (std::size_t l = 0; l < lanes; l += native_width) {
      floats value;
      ints kept;
      load(value, x + at + l);
      load(kept, &keep[feature % 4][l]);
      store(y + at + l, (ints)(value * draw.scale) & kept);
    }
  });
}

/// Features of one block, for any number of features: a group of four words may belong to two samples.
inline void dropout_by_element(const dropout_draw& draw, const shape& s, std::size_t block, std::size_t begin,
                               std::size_t end, const float* x, float* y) {
  for_each_feature(s, begin, end, [&](std::size_t feature, std::size_t vector) {
    for (std::size_t l = 0; l < lanes; ++l) {
      const std::size_t e = (block * lanes + l) * s.size() + feature;
      const std::uint32_t word =
          random_at(draw.seed, random_stream::dropout, static_cast<std::uint32_t>(e / 4), draw.step, draw.layer)[e % 4];
      const std::size_t at = (block * s.size() + vector) * lanes + l;
      y[at] = (word >> 8) >= draw.threshold ? x[at] * draw.scale : 0.0f;
    }
  });
}

}  // namespace detail

/// Zeroes each element with probability p and scales the others by 1 / (1 - p); applied to the gradient with the same
/// seed, step and layer it is its own backward pass. y may be x.
///
/// Element e = sample * s.size() + feature, features in canonical order (c * H + h) * W + w, is kept where
/// uniform(word) >= p, with word = random_at(seed, random_stream::dropout, e / 4, step, layer)[e % 4].
/// Srivastava et al.: Dropout: a simple way to prevent neural networks from overfitting. JMLR 15 (2014).
/// @param x [block][H][W][C][16]; lanes beyond the batch that are 0 stay 0
/// @throws argument_error when p is not in [0, 1]
inline void dropout(const parallel& par, const shape& s, std::size_t batch, float p, std::uint64_t seed,
                    std::uint32_t step, std::uint32_t layer, const float* x, float* y) {
  if (!(p >= 0.0f && p <= 1.0f))
    reject_argument("kd::cpu::dropout", "p must lie in [0, 1]", p, "pass the probability of zeroing an element");
  const std::size_t features = s.size();
  if (features == 0) return;
  // uniform(word) >= p for 24 bits k is k >= p * 2^24, exact in double, so k >= its ceiling.
  const auto threshold = static_cast<std::uint32_t>(std::ceil(static_cast<double>(p) * 0x1p24));
  const detail::dropout_draw draw{seed, step, layer, threshold, p < 1.0f ? 1.0f / (1.0f - p) : 0.0f};
  const bool by_vector = features % 4 == 0;
  const std::size_t unit = by_vector ? 4 : 1, units = features / unit;  // features per unit of work
  par.split(blocks_of(batch) * units, [&](std::size_t begin, std::size_t end, std::size_t) {
    while (begin < end) {
      const std::size_t block = begin / units, first = begin % units;
      const std::size_t last = std::min(units, first + (end - begin));
      (by_vector ? detail::dropout_by_vector : detail::dropout_by_element)(draw, s, block, first * unit, last * unit, x,
                                                                           y);
      begin += last - first;
    }
  });
}

/// From an image to a row of its features in canonical order (c * H + h) * W + w.
/// @param x [block][H][W][C][16]
/// @param y [block][C*H*W][16], not x
inline void flatten_forward(const parallel& par, const shape& in, std::size_t batch, const float* x, float* y) {
  const std::size_t pixels = in.pixels();
  par.for_each(blocks_of(batch) * in.channels, [&](std::size_t i) {
    const float* from = x + (i / in.channels * in.size() + i % in.channels) * lanes;
    float* to = y + i * pixels * lanes;
    for (std::size_t p = 0; p < pixels; ++p)
      std::memcpy(to + p * lanes, from + p * in.channels * lanes, lanes * sizeof(float));
  });
}

/// Gradient of flatten_forward: its inverse.
/// @param dy [block][C*H*W][16]
/// @param dx [block][H][W][C][16], overwritten, not dy
inline void flatten_backward(const parallel& par, const shape& in, std::size_t batch, const float* dy, float* dx) {
  const std::size_t pixels = in.pixels();
  par.for_each(blocks_of(batch) * pixels, [&](std::size_t i) {
    const float* from = dy + (i / pixels * in.size() + i % pixels) * lanes;
    float* to = dx + i * in.channels * lanes;
    for (std::size_t c = 0; c < in.channels; ++c)
      std::memcpy(to + c * lanes, from + c * pixels * lanes, lanes * sizeof(float));
  });
}

}  // namespace kd::inline KD_ABI::cpu
