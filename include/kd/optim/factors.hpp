/// The numbers of one optimiser step as a row of floats, for step_scalars, and back.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <type_traits>

#include "kd/optim/adam.hpp"
#include "kd/optim/sgd.hpp"

namespace kd::inline KD_ABI::optim {

/// The rules of this folder, which every device knows. A type derived from one of them is another rule: its own formula
/// would be asked for, and the base's would run.
template <class Rule>
inline constexpr bool known_rule =
    std::is_same_v<Rule, adam> || std::is_same_v<Rule, adamw> || std::is_same_v<Rule, sgd>;

/// As many floats as the factors of any rule take.
using packed_factors = std::array<float, 8>;
static_assert(sizeof(adam_factors) == sizeof(packed_factors));

/// adam_factors in their order.
constexpr packed_factors pack_factors(const adam_factors& f) { return std::bit_cast<packed_factors>(f); }
/// sgd_factors in their order; `buffered` as 0 or 1.
constexpr packed_factors pack_factors(const sgd_factors& f) {
  return {f.l2, f.carry, f.take, f.own, f.through, f.rate, f.buffered ? 1.0f : 0.0f, 0.0f};
}

constexpr adam_factors unpack_factors(const adam&, const packed_factors& p) { return std::bit_cast<adam_factors>(p); }
constexpr adam_factors unpack_factors(const adamw&, const packed_factors& p) { return std::bit_cast<adam_factors>(p); }
constexpr sgd_factors unpack_factors(const sgd&, const packed_factors& p) {
  return {p[0], p[1], p[2], p[3], p[4], p[5], p[6] != 0};
}

}  // namespace kd::inline KD_ABI::optim
