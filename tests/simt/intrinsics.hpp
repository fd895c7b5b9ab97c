/// Barriers, shuffles and votes, as CUDA declares them. Every call knows its place, by which calls are told apart.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace simt {

/// Where a kernel waits.
struct place {
  const char* file;
  int line;
};

enum class meeting : std::uint8_t {
  syncthreads,
  syncthreads_count,
  syncthreads_and,
  syncthreads_or,
  syncwarp,
  shfl,
  shfl_up,
  shfl_down,
  shfl_xor,
  ballot,
  all,
  any,
  match_any,
  reduce_add,
  reduce_min,
  reduce_max,
  reduce_and,
  reduce_or,
  reduce_xor,
  none
};

/// Waits for all threads of the block; returns what they computed together.
int meet_block(meeting kind, int predicate, place where);
/// Waits for the lanes of the mask. `source` is the lane whose value is wanted. Returns the value for this lane.
std::uint64_t meet_warp(meeting kind, unsigned mask, std::uint64_t value, unsigned source, place where);
/// The lane that a shuffle reads; throws where `width` is not a power of two up to 32.
unsigned shuffle_source(meeting kind, unsigned argument, int width, place where);
/// A mask with this thread's bit alone: a kernel must not rely on more.
unsigned active_mask();
/// The block's dynamic shared memory.
void* dynamic_shared();
/// Ends the kernel with an error.
[[noreturn]] void trap(place where);

template <class T>
concept shuffled = std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, long> ||
    std::is_same_v<T, unsigned long> || std::is_same_v<T, long long> || std::is_same_v<T, unsigned long long> ||
    std::is_same_v<T, float> || std::is_same_v<T, double>;

template <shuffled T>
inline T shuffle(meeting kind, unsigned mask, T value, unsigned argument, int width, place where) {
  std::uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  bits = meet_warp(kind, mask, bits, shuffle_source(kind, argument, width, where), where);
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace simt

// The place of the call, as the last two parameters of everything that waits.
#define KD_SIMT_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(KD_SIMT_PLACE) { simt::meet_block(simt::meeting::syncthreads, 0, {file, line}); }
inline int __syncthreads_count(int predicate, KD_SIMT_PLACE) {
  return simt::meet_block(simt::meeting::syncthreads_count, predicate, {file, line});
}
inline int __syncthreads_and(int predicate, KD_SIMT_PLACE) {
  return simt::meet_block(simt::meeting::syncthreads_and, predicate, {file, line});
}
inline int __syncthreads_or(int predicate, KD_SIMT_PLACE) {
  return simt::meet_block(simt::meeting::syncthreads_or, predicate, {file, line});
}
inline void __syncwarp(unsigned mask = 0xffffffffu, KD_SIMT_PLACE) {
  simt::meet_warp(simt::meeting::syncwarp, mask, 0, 0, {file, line});
}

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, KD_SIMT_PLACE) {
  return simt::shuffle(simt::meeting::shfl, mask, value, static_cast<unsigned>(source), width, {file, line});
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, KD_SIMT_PLACE) {
  return simt::shuffle(simt::meeting::shfl_up, mask, value, delta, width, {file, line});
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, KD_SIMT_PLACE) {
  return simt::shuffle(simt::meeting::shfl_down, mask, value, delta, width, {file, line});
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, KD_SIMT_PLACE) {
  return simt::shuffle(simt::meeting::shfl_xor, mask, value, static_cast<unsigned>(lanes), width, {file, line});
}

inline unsigned __ballot_sync(unsigned mask, int predicate, KD_SIMT_PLACE) {
  return static_cast<unsigned>(simt::meet_warp(simt::meeting::ballot, mask, predicate != 0, 0, {file, line}));
}
inline int __all_sync(unsigned mask, int predicate, KD_SIMT_PLACE) {
  return static_cast<int>(simt::meet_warp(simt::meeting::all, mask, predicate != 0, 0, {file, line}));
}
inline int __any_sync(unsigned mask, int predicate, KD_SIMT_PLACE) {
  return static_cast<int>(simt::meet_warp(simt::meeting::any, mask, predicate != 0, 0, {file, line}));
}
template <simt::shuffled T>
inline unsigned __match_any_sync(unsigned mask, T value, KD_SIMT_PLACE) {
  std::uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  return static_cast<unsigned>(simt::meet_warp(simt::meeting::match_any, mask, bits, 0, {file, line}));
}
inline unsigned __activemask() { return simt::active_mask(); }

#define KD_SIMT_REDUCE(name)                                                                                   \
  inline unsigned __reduce_##name##_sync(unsigned mask, unsigned value, KD_SIMT_PLACE) {                       \
    return static_cast<unsigned>(simt::meet_warp(simt::meeting::reduce_##name, mask, value, 0, {file, line})); \
  }
KD_SIMT_REDUCE(add)
KD_SIMT_REDUCE(min)
KD_SIMT_REDUCE(max)
KD_SIMT_REDUCE(and)
KD_SIMT_REDUCE(or)
KD_SIMT_REDUCE(xor)
#undef KD_SIMT_REDUCE

inline void __trap(KD_SIMT_PLACE) { simt::trap({file, line}); }
#undef KD_SIMT_PLACE

// One operating system thread runs all fibers, so that every store is seen at once.
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
