/// What is remembered of every word of shared and device memory in the race build. Internal to the emulator.
#pragma once

#include <cstddef>
#include <cstdint>

namespace simt {

/// One access: who, when and from where. `serial` numbers the blocks over all launches; 0 stands for no access.
struct access_stamp {
  std::uint32_t serial = 0;
  std::uint32_t epoch = 0;  // __syncthreads of the block so far
  std::uint32_t clock = 0;  // meetings of the warp since then
  std::uint16_t thread = 0;
  std::uint16_t atomic = 0;
  std::uint32_t code = 0;  // return address in the executable
};

/// The accesses to one word (or byte) that can still race with a later one. Two readers are enough: when they are of
/// two warps, every writer races with one of them; within a warp a reader replaces those that are ordered before it.
struct cell {
  access_stamp write;
  access_stamp read[2];
  std::uint32_t split = 0;  // not 0: bytes are looked at one by one, in cells of their own
};
static_assert(sizeof(cell) == 64);

enum class memory_kind { none, shared, device };

}  // namespace simt
