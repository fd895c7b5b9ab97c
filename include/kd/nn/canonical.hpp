/// Between PyTorch's order of a tensor, [out,in,kh,kw], and the order that kd stores, [out][kh][kw][in].
#pragma once

#include <cstddef>

#include "kd/nn/layer.hpp"

namespace kd::inline KD_ABI::nn {

/// Position in the stored tensor of element `canonical` of PyTorch's tensor.
constexpr std::size_t stored_position(const parameter& p, std::size_t canonical) {
  if (p.rank != 4) return canonical;
  const std::size_t taps = p.dims[2] * p.dims[3];
  const std::size_t out = canonical / (p.dims[1] * taps);
  const std::size_t in = canonical / taps % p.dims[1];
  return (out * taps + canonical % taps) * p.dims[1] + in;
}

inline void to_canonical(const parameter& p, const float* stored, float* canonical) {
  for (std::size_t i = 0; i < p.size(); ++i) canonical[i] = stored[stored_position(p, i)];
}

inline void from_canonical(const parameter& p, const float* canonical, float* stored) {
  for (std::size_t i = 0; i < p.size(); ++i) stored[stored_position(p, i)] = canonical[i];
}

}  // namespace kd::inline KD_ABI::nn
