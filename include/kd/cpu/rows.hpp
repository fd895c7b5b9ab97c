/// The lane-blocked layout [block][H][W][C][16], and conversion from and to plain rows [N][F].
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kd/core/abi.hpp"
#include "kd/core/shape.hpp"
#include "kd/cpu/parallel.hpp"

namespace kd::inline KD_ABI::cpu {

/// Floats that an activation of shape `s` takes for a batch, padding lanes included.
constexpr std::size_t storage_size(const shape& s, std::size_t batch) { return blocks_of(batch) * lanes * s.size(); }

namespace detail {

/// Writes all-ones for the lanes of the last block that hold a sample, 0 for those beyond the batch.
inline void last_block_mask(std::size_t batch, std::int32_t (&mask)[lanes]) {
  const std::size_t live = batch - (blocks_of(batch) - 1) * lanes;
  for (std::size_t l = 0; l < lanes; ++l) mask[l] = l < live ? -1 : 0;
}

/// Calls visit(feature, vector) for the features [begin, end) of one block: `feature` counts in canonical order
/// (c * H + h) * W + w, `vector` is its position in [H][W][C].
template <class Visit>
void for_each_feature(const shape& s, std::size_t begin, std::size_t end, const Visit& visit) {
  if (begin >= end) return;
  std::size_t channel = begin / s.pixels(), pixel = begin % s.pixels();
  for (std::size_t feature = begin; feature < end; ++feature) {
    visit(feature, pixel * s.channels + channel);
    if (++pixel == s.pixels()) {
      pixel = 0;
      ++channel;
    }
  }
}

}  // namespace detail

/// Copies lane-blocked activations to plain rows.
/// @param s shape of one sample; the features of an image come in canonical order (c * H + h) * W + w
/// @param x [block][H][W][C][16]
/// @param rows [batch][s.size()]
inline void to_rows(const parallel& par, const shape& s, std::size_t batch, const float* x, float* rows) {
  const std::size_t features = s.size();
  par.split(blocks_of(batch) * features, [&](std::size_t begin, std::size_t end, std::size_t) {
    while (begin < end) {
      const std::size_t block = begin / features, first = begin % features;
      const std::size_t last = std::min(features, first + (end - begin));
      const std::size_t live = std::min(lanes, batch - block * lanes);
      const float* from = x + block * features * lanes;
      float* to = rows + block * lanes * features;
      detail::for_each_feature(s, first, last, [&](std::size_t feature, std::size_t vector) {
        for (std::size_t l = 0; l < live; ++l) to[l * features + feature] = from[vector * lanes + l];
      });
      begin += last - first;
    }
  });
}

/// The inverse of to_rows; lanes beyond the batch become 0.
inline void from_rows(const parallel& par, const shape& s, std::size_t batch, const float* rows, float* x) {
  const std::size_t features = s.size();
  par.split(blocks_of(batch) * features, [&](std::size_t begin, std::size_t end, std::size_t) {
    while (begin < end) {
      const std::size_t block = begin / features, first = begin % features;
      const std::size_t last = std::min(features, first + (end - begin));
      const std::size_t live = std::min(lanes, batch - block * lanes);
      const float* from = rows + block * lanes * features;
      float* to = x + block * features * lanes;
      detail::for_each_feature(s, first, last, [&](std::size_t feature, std::size_t vector) {
        for (std::size_t l = 0; l < lanes; ++l) to[vector * lanes + l] = l < live ? from[l * features + feature] : 0.0f;
      });
      begin += last - first;
    }
  });
}

}  // namespace kd::inline KD_ABI::cpu
