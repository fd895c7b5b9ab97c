/// Placement of buffers with known lifetimes in one arena, at compile time.
#pragma once

#include <array>
#include <cstddef>

#include "kd/core/abi.hpp"

namespace kd::inline KD_ABI {

/// A buffer that is needed from time `first` to time `last`, both included; size 0 means that it does not exist.
struct lifetime {
  std::size_t size = 0;
  std::size_t first = 0;
  std::size_t last = 0;
  constexpr bool overlaps(const lifetime& other) const { return first <= other.last && other.first <= last; }
};

/// Offsets for N buffers, and the size of the arena that holds them.
template <std::size_t N>
struct memory_plan {
  std::array<std::size_t, N> offset{};
  std::size_t size = 0;
};

/// Places the largest buffer first, each at the lowest offset where no buffer alive at the same time is in the way.
template <std::size_t N>
constexpr memory_plan<N> place(const std::array<lifetime, N>& buffers) {
  memory_plan<N> plan;
  std::array<std::size_t, N> order{};
  for (std::size_t i = 0; i < N; ++i) {
    std::size_t at = i;
    for (; at > 0 && buffers[order[at - 1]].size < buffers[i].size; --at) order[at] = order[at - 1];
    order[at] = i;
  }
  for (std::size_t i = 0; i < N; ++i) {
    const lifetime& mine = buffers[order[i]];
    std::size_t offset = 0;
    for (bool moved = mine.size > 0; moved;) {
      moved = false;
      for (std::size_t j = 0; j < i; ++j) {
        const lifetime& other = buffers[order[j]];
        const std::size_t begin = plan.offset[order[j]];
        if (!mine.overlaps(other) || offset >= begin + other.size || begin >= offset + mine.size) continue;
        offset = begin + other.size;
        moved = true;
      }
    }
    plan.offset[order[i]] = offset;
    if (offset + mine.size > plan.size) plan.size = offset + mine.size;
  }
  return plan;
}

}  // namespace kd::inline KD_ABI
