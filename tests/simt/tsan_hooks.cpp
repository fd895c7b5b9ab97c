// What -fsanitize=thread calls, instead of the sanitizer's runtime: every access goes to the search for races.
#if defined(KD_SIMT_RACE)
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "watch.hpp"

#define KD_SIMT_CALLER __builtin_return_address(0)
#define KD_SIMT_HOOKS(bytes)                                                                                   \
  void __tsan_read##bytes(void* at) { simt::watch_access(at, bytes, false, false, KD_SIMT_CALLER); }           \
  void __tsan_write##bytes(void* at) { simt::watch_access(at, bytes, true, false, KD_SIMT_CALLER); }           \
  void __tsan_read_write##bytes(void* at) {                                                                    \
    simt::watch_access(at, bytes, false, false, KD_SIMT_CALLER);                                               \
    simt::watch_access(at, bytes, true, false, KD_SIMT_CALLER);                                                \
  }                                                                                                            \
  void __tsan_unaligned_read##bytes(void* at) { simt::watch_access(at, bytes, false, false, KD_SIMT_CALLER); } \
  void __tsan_unaligned_write##bytes(void* at) { simt::watch_access(at, bytes, true, false, KD_SIMT_CALLER); } \
  void __tsan_volatile_read##bytes(void* at) { simt::watch_access(at, bytes, false, false, KD_SIMT_CALLER); }  \
  void __tsan_volatile_write##bytes(void* at) { simt::watch_access(at, bytes, true, false, KD_SIMT_CALLER); }

// Atomics of the host's code (reference counts and the like): kernels use atomicAdd and its kind.
#define KD_SIMT_ATOMIC_HOOKS(bits)                                                                                   \
  std::uint##bits##_t __tsan_atomic##bits##_load(const volatile std::uint##bits##_t* at, int) {                      \
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);                                                                    \
  }                                                                                                                  \
  void __tsan_atomic##bits##_store(volatile std::uint##bits##_t* at, std::uint##bits##_t value, int) {               \
    __atomic_store_n(at, value, __ATOMIC_SEQ_CST);                                                                   \
  }                                                                                                                  \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile std::uint##bits##_t* at, std::uint##bits##_t* expected, \
                                                    std::uint##bits##_t value, int, int) {                           \
    return __atomic_compare_exchange_n(at, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);              \
  }                                                                                                                  \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile std::uint##bits##_t* at, std::uint##bits##_t* expected,   \
                                                  std::uint##bits##_t value, int, int) {                             \
    return __atomic_compare_exchange_n(at, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);              \
  }                                                                                                                  \
  std::uint##bits##_t __tsan_atomic##bits##_compare_exchange_val(                                                    \
      volatile std::uint##bits##_t* at, std::uint##bits##_t expected, std::uint##bits##_t value, int, int) {         \
    __atomic_compare_exchange_n(at, &expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                    \
    return expected;                                                                                                 \
  }                                                                                                                  \
  KD_SIMT_ATOMIC_UPDATE(bits, exchange, __atomic_exchange_n)                                                         \
  KD_SIMT_ATOMIC_UPDATE(bits, fetch_add, __atomic_fetch_add)                                                         \
  KD_SIMT_ATOMIC_UPDATE(bits, fetch_sub, __atomic_fetch_sub)                                                         \
  KD_SIMT_ATOMIC_UPDATE(bits, fetch_and, __atomic_fetch_and)                                                         \
  KD_SIMT_ATOMIC_UPDATE(bits, fetch_or, __atomic_fetch_or)                                                           \
  KD_SIMT_ATOMIC_UPDATE(bits, fetch_xor, __atomic_fetch_xor)                                                         \
  KD_SIMT_ATOMIC_UPDATE(bits, fetch_nand, __atomic_fetch_nand)
#define KD_SIMT_ATOMIC_UPDATE(bits, name, builtin)                                                                     \
  std::uint##bits##_t __tsan_atomic##bits##_##name(volatile std::uint##bits##_t* at, std::uint##bits##_t value, int) { \
    return builtin(at, value, __ATOMIC_SEQ_CST);                                                                       \
  }

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpragmas"
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wunknown-warning-option"
#endif
#pragma GCC diagnostic ignored "-Wbuiltin-declaration-mismatch"
extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_ignore_thread_begin() {}
void __tsan_ignore_thread_end() {}

KD_SIMT_HOOKS(1)
KD_SIMT_HOOKS(2)
KD_SIMT_HOOKS(4)
KD_SIMT_HOOKS(8)
KD_SIMT_HOOKS(16)

void __tsan_read_range(void* at, unsigned long bytes) { simt::watch_access(at, bytes, false, false, KD_SIMT_CALLER); }
void __tsan_write_range(void* at, unsigned long bytes) { simt::watch_access(at, bytes, true, false, KD_SIMT_CALLER); }
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

void* __tsan_memcpy(void* to, const void* from, unsigned long bytes) {
  simt::watch_access(from, bytes, false, false, KD_SIMT_CALLER);
  simt::watch_access(to, bytes, true, false, KD_SIMT_CALLER);
  return std::memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, unsigned long bytes) {
  simt::watch_access(from, bytes, false, false, KD_SIMT_CALLER);
  simt::watch_access(to, bytes, true, false, KD_SIMT_CALLER);
  return std::memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int byte, unsigned long bytes) {
  simt::watch_access(to, bytes, true, false, KD_SIMT_CALLER);
  return std::memset(to, byte, bytes);
}

KD_SIMT_ATOMIC_HOOKS(8)
KD_SIMT_ATOMIC_HOOKS(16)
KD_SIMT_ATOMIC_HOOKS(32)
KD_SIMT_ATOMIC_HOOKS(64)
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_atomic_signal_fence(int) {}
}
#pragma GCC diagnostic pop
#endif
