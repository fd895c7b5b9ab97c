// The search for races: every access of a kernel to shared and device memory is compared with earlier ones to that
// word. Two accesses by different threads, one of them writing and not both atomic, race unless a barrier orders them:
// __syncthreads within a block, the meetings of lanes within a warp; nothing orders the blocks of a launch.
#define KD_SIMT_RUNTIME
#if defined(KD_SIMT_RACE)
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "block.hpp"
#include "findings.hpp"
#include "memory.hpp"
#include "operations.hpp"
#include "shadow.hpp"
#include "watch.hpp"

namespace simt {

namespace {

// What the lanes of a warp know of one another since the last __syncthreads. As long as all of them meet, one number
// says it: every lane knows what happened up to clock `level`. `known[t][l]` is lane t's knowledge of lane l otherwise.
struct warp_clock {
  bool uniform = true;
  std::uint32_t level = 0;
  std::array<std::array<std::uint32_t, lanes_per_warp>, lanes_per_warp> known{};

  std::uint32_t clock_of(unsigned lane) const { return uniform ? level + 1 : known[lane][lane]; }
  std::uint32_t knows(unsigned lane, unsigned of) const { return uniform ? level : known[lane][of]; }
};

// Behind the segment of thread_local variables lies what only the C library touches: an access there has run past the
// last static shared variable.
constexpr std::size_t behind_static_bytes = 1024;

struct watched {
  bool active = false;
  std::uint32_t serial = 0, first_serial = 1;  // of this block, and of the launch's first
  std::uint32_t epoch = 0, clock = 1;
  std::uint16_t thread = 0;
  unsigned lane = 0, warp = 0;
  std::uintptr_t arena_begin = 0, static_begin = 0, image = 0;
  std::size_t static_size = 0;
  std::uintptr_t dynamic_begin = 0, dynamic_end = 0;
};
watched now;
std::array<warp_clock, most_warps> clocks;

cell* device_cells = nullptr;  // one for each word of the arena
std::vector<cell> static_cells;
std::vector<std::array<cell, 4>> split_cells;  // of this launch; index 0 stands for none

std::uint32_t* owners = nullptr;  // for each 256 bytes of the arena the block that they belong to; 0 for none
std::vector<allocation> owned{{}};

template <class T>
T* reserve(std::size_t count) {
  void* got =
      mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (got == MAP_FAILED) throw std::bad_alloc();
  return static_cast<T*>(got);
}

template <memory_kind Kind>
bool ordered(const access_stamp& s) {
  if (s.serial < now.first_serial) return true;  // an earlier launch, or none
  if (s.serial != now.serial) return Kind == memory_kind::shared;
  if (s.thread == now.thread || s.epoch != now.epoch) return true;
  if (s.thread / lanes_per_warp != now.warp) return false;
  return s.clock <= clocks[now.warp].knows(now.lane, s.thread % lanes_per_warp);
}

access_stamp stamp_now(bool atomic, std::uint32_t code) {
  return {now.serial, now.epoch, now.clock, now.thread, atomic, code};
}

bool same_warp(const access_stamp& a, const access_stamp& b) {
  return a.serial == b.serial && a.thread / lanes_per_warp == b.thread / lanes_per_warp;
}

template <memory_kind Kind>
void remember_read(cell& c, std::uint32_t code) {
  const access_stamp mine = stamp_now(false, code);
  for (access_stamp& slot : c.read)
    if (slot.serial == 0 || ordered<Kind>(slot)) {
      slot = mine;
      return;
    }
  if (same_warp(c.read[0], c.read[1]) && !same_warp(c.read[0], mine)) c.read[1] = mine;
}

struct access {
  std::uintptr_t address;
  std::size_t bytes;
  bool write, atomic;
  std::uint32_t code;
  bool reported = false;  // one report for each access is enough
};

void report_race(access& a, const access_stamp& other, bool other_writes) {
  if (std::exchange(a.reported, true)) return;
  add_finding(
      fault::race, a.code, other.code,
      std::string(a.atomic  ? "atomic update"
                  : a.write ? "write"
                            : "read") +
          " of what " +
          (other.serial != now.serial ? "a thread of another block" : "thread " + std::to_string(other.thread)) +
          (other_writes ? " wrote" : " read"));
}

template <memory_kind Kind>
void look_at(cell& c, access& a) {
  if (!a.write && c.read[0].serial == now.serial && c.read[0].thread == now.thread && c.read[0].clock == now.clock &&
      c.read[0].epoch == now.epoch)
    return;
  if constexpr (Kind == memory_kind::shared)
    if ((!a.write || a.atomic) && c.write.serial != now.serial && !std::exchange(a.reported, true))
      add_finding(fault::uninitialised_shared, a.code, 0,
                  "read of shared memory that no thread of the block has written");
  if (!ordered<Kind>(c.write) && !(a.atomic && c.write.atomic != 0)) report_race(a, c.write, true);
  if (!a.write) return remember_read<Kind>(c, a.code);
  for (access_stamp& slot : c.read) {
    if (!ordered<Kind>(slot)) report_race(a, slot, false);
    slot = {};
  }
  c.write = stamp_now(a.atomic, a.code);
}

// Bytes first and bytes - 1 more of one word.
template <memory_kind Kind>
void look_at_bytes(cell& c, unsigned first, unsigned bytes, access& a) {
  if (c.split != 0 && c.write.serial < now.first_serial) c = {};  // split by an earlier launch
  if (c.split == 0) {
    if (bytes == 4) return look_at<Kind>(c, a);
    split_cells.push_back({c, c, c, c});
    c.split = static_cast<std::uint32_t>(split_cells.size() - 1);
    c.write.serial = now.serial;
  }
  for (unsigned i = first; i < first + bytes; ++i) look_at<Kind>(split_cells[c.split][i], a);
}

template <memory_kind Kind>
void look_at_words(cell* cells, std::uintptr_t offset, access& a) {
  const std::uintptr_t end = offset + a.bytes;
  while (offset < end) {
    const unsigned first = offset % 4, bytes = static_cast<unsigned>(std::min<std::uintptr_t>(4 - first, end - offset));
    look_at_bytes<Kind>(cells[offset / 4], first, bytes, a);
    offset += bytes;
  }
}

void report_outside(const access& a, const std::string& of) {
  add_finding(fault::out_of_bounds, a.code, 0,
              std::string(a.write ? "write" : "read") + " of " + std::to_string(a.bytes) + " bytes outside of " + of);
}

void look_at_arena(access& a) {
  const std::uintptr_t offset = a.address - now.arena_begin;
  if (offset < arena_dynamic_bytes) {
    if (a.address < now.dynamic_begin || a.address + a.bytes > now.dynamic_end)
      return report_outside(
          a, "the block's " + std::to_string(now.dynamic_end - now.dynamic_begin) + " bytes of dynamic shared memory");
    return look_at_words<memory_kind::shared>(device_cells, offset, a);
  }
  const allocation& owner = owned[owners[offset / 256]];
  if (a.address < owner.begin || a.address + a.bytes > owner.begin + owner.size)
    return report_outside(a, owner.size == 0 ? "every live device buffer"
                                             : "the nearest device buffer of " + std::to_string(owner.size) + " bytes");
  look_at_words<memory_kind::device>(device_cells, offset, a);
}

void look_at_static(access& a) {
  if (!in_static_variable(a.address - now.static_begin, a.bytes))
    return report_outside(a, "every static shared variable");
  look_at_words<memory_kind::shared>(static_cells.data(), a.address - now.static_begin, a);
}

}  // namespace

void watch_access(const void* at, std::size_t bytes, bool write, bool atomic, const void* caller) {
  access a{reinterpret_cast<std::uintptr_t>(at), bytes, write, atomic, 0};
  const bool in_arena = a.address - now.arena_begin < arena_bytes;
  if (!in_arena && a.address - now.static_begin >= now.static_size) return;
  a.code = static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(caller) - now.image);
  if (now.active) {
    if (in_arena)
      look_at_arena(a);
    else
      look_at_static(a);
  } else if (in_arena && !operating()) {
    report_host_access(write, a.code);
  }
}

void watch_atomic(const void* at, std::size_t bytes, const void* caller) {
  watch_access(at, bytes, true, true, caller);
}

void watch_arena() {
  now.arena_begin = reinterpret_cast<std::uintptr_t>(arena);
  now.image = image_begin();
  device_cells = reserve<cell>(arena_bytes / 4);
  owners = reserve<std::uint32_t>(arena_bytes / 256);
}

void watch_allocation(const void* memory, std::size_t bytes, bool live) {
  const std::uintptr_t begin = reinterpret_cast<std::uintptr_t>(memory), first = (begin - now.arena_begin) / 256;
  // The guard zones belong to the block, so that a report can name its size; a released block belongs to nobody.
  const std::uintptr_t last = first + (bytes + 255) / 256 + 1;
  if (live) owned.push_back({begin, bytes});
  std::fill(owners + first - 1, owners + last, live ? static_cast<std::uint32_t>(owned.size() - 1) : 0);
  if (!live && bytes >= 65536)
    madvise(device_cells + (begin - now.arena_begin) / 4, bytes / 4 * sizeof(cell), MADV_DONTNEED);
}

void watch_kernel_begin(const void* dynamic, std::size_t dynamic_bytes) {
  const segment s = static_segment();
  now.static_begin = reinterpret_cast<std::uintptr_t>(s.begin);
  now.static_size = s.size + behind_static_bytes;
  static_cells.resize(now.static_size / 4 + 1);
  split_cells.resize(1);
  now.dynamic_begin = reinterpret_cast<std::uintptr_t>(dynamic);
  now.dynamic_end = now.dynamic_begin + dynamic_bytes;
  now.first_serial = now.serial + 1;
  clear_findings();
  now.active = true;
}

void watch_kernel_end() { now.active = false; }

void watch_block() {
  ++now.serial;
  now.epoch = 0;
  for (warp_clock& c : clocks) c.uniform = true, c.level = 0;
}

void watch_thread(unsigned index) {
  now.thread = static_cast<std::uint16_t>(index);
  now.lane = index % lanes_per_warp;
  now.warp = index / lanes_per_warp;
  now.clock = clocks[now.warp].clock_of(now.lane);
}

void watch_block_meeting() {
  ++now.epoch;
  for (warp_clock& c : clocks) c.uniform = true, c.level = 0;
  now.clock = 1;
}

void watch_lane_meeting(unsigned warp, unsigned mask) {
  warp_clock& c = clocks[warp];
  const bool all = mask == run.warp_at[warp].existing;
  if (c.uniform && all) {
    ++c.level;
  } else {
    if (c.uniform)
      for (unsigned t = 0; t < lanes_per_warp; ++t)
        for (unsigned l = 0; l < lanes_per_warp; ++l) c.known[t][l] = c.level + (t == l);
    c.uniform = false;
    std::array<std::uint32_t, lanes_per_warp> joined{};
    for (unsigned t = 0; t < lanes_per_warp; ++t)
      if (mask >> t & 1u)
        for (unsigned l = 0; l < lanes_per_warp; ++l) joined[l] = std::max(joined[l], c.known[t][l]);
    for (unsigned t = 0; t < lanes_per_warp; ++t)
      if (mask >> t & 1u) {
        c.known[t] = joined;
        ++c.known[t][t];
      }
    if (all) {
      c.uniform = true;
      c.level = *std::max_element(joined.begin(), joined.end());
    }
  }
  now.clock = c.clock_of(now.lane);
}

}  // namespace simt
#endif
