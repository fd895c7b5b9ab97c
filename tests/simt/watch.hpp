/// What the search for races must know of memory and of the course of a kernel; nothing in other builds. Internal to
/// the emulator.
#pragma once

#include <cstddef>

namespace simt {

#if defined(KD_SIMT_RACE)
/// An access to [at, at + bytes) from the code that returns to `caller`.
void watch_access(const void* at, std::size_t bytes, bool write, bool atomic, const void* caller);
void watch_atomic(const void* at, std::size_t bytes, const void* caller);

void watch_arena();
void watch_allocation(const void* memory, std::size_t bytes, bool live);

void watch_kernel_begin(const void* dynamic, std::size_t dynamic_bytes);
void watch_kernel_end();
void watch_block();
void watch_thread(unsigned index);
/// The whole block has met; the lanes of `mask` of a warp have met.
void watch_block_meeting();
void watch_lane_meeting(unsigned warp, unsigned mask);
/// Throws what was found since watch_kernel_begin.
void throw_findings();
#else
inline void watch_atomic(const void*, std::size_t, const void*) {}
inline void watch_arena() {}
inline void watch_allocation(const void*, std::size_t, bool) {}
inline void watch_kernel_begin(const void*, std::size_t) {}
inline void watch_kernel_end() {}
inline void watch_block() {}
inline void watch_thread(unsigned) {}
inline void watch_block_meeting() {}
inline void watch_lane_meeting(unsigned, unsigned) {}
inline void throw_findings() {}
#endif

}  // namespace simt
