/// Atomic operations. All fibers run on one operating system thread, so that plain code is atomic; the calls go to the
/// runtime, which tells them from ordinary accesses when it looks for races. Each returns the old value.
#pragma once

namespace simt {

enum class atomic : unsigned char { add, sub, min, max, exchange, bit_and, bit_or, bit_xor };

/// Replaces *at by operation(*at, value); returns the old value.
template <class T>
T atomic_update(atomic operation, T* at, T value);
/// Replaces *at by `value` where it equals `expected`; returns the old value.
template <class T>
T atomic_compare(T* at, T expected, T value);

}  // namespace simt

#define KD_SIMT_ATOMIC(name, operation, T) \
  inline T name(T* at, T value) { return simt::atomic_update<T>(simt::atomic::operation, at, value); }
KD_SIMT_ATOMIC(atomicAdd, add, int)
KD_SIMT_ATOMIC(atomicAdd, add, unsigned)
KD_SIMT_ATOMIC(atomicAdd, add, unsigned long long)
KD_SIMT_ATOMIC(atomicAdd, add, float)
KD_SIMT_ATOMIC(atomicAdd, add, double)
KD_SIMT_ATOMIC(atomicSub, sub, int)
KD_SIMT_ATOMIC(atomicSub, sub, unsigned)
KD_SIMT_ATOMIC(atomicMin, min, int)
KD_SIMT_ATOMIC(atomicMin, min, unsigned)
KD_SIMT_ATOMIC(atomicMin, min, unsigned long long)
KD_SIMT_ATOMIC(atomicMax, max, int)
KD_SIMT_ATOMIC(atomicMax, max, unsigned)
KD_SIMT_ATOMIC(atomicMax, max, unsigned long long)
KD_SIMT_ATOMIC(atomicExch, exchange, int)
KD_SIMT_ATOMIC(atomicExch, exchange, unsigned)
KD_SIMT_ATOMIC(atomicExch, exchange, unsigned long long)
KD_SIMT_ATOMIC(atomicExch, exchange, float)
KD_SIMT_ATOMIC(atomicAnd, bit_and, int)
KD_SIMT_ATOMIC(atomicAnd, bit_and, unsigned)
KD_SIMT_ATOMIC(atomicOr, bit_or, int)
KD_SIMT_ATOMIC(atomicOr, bit_or, unsigned)
KD_SIMT_ATOMIC(atomicOr, bit_or, unsigned long long)
KD_SIMT_ATOMIC(atomicXor, bit_xor, int)
KD_SIMT_ATOMIC(atomicXor, bit_xor, unsigned)
#undef KD_SIMT_ATOMIC

inline int atomicCAS(int* at, int expected, int value) { return simt::atomic_compare(at, expected, value); }
inline unsigned atomicCAS(unsigned* at, unsigned expected, unsigned value) {
  return simt::atomic_compare(at, expected, value);
}
inline unsigned long long atomicCAS(unsigned long long* at, unsigned long long expected, unsigned long long value) {
  return simt::atomic_compare(at, expected, value);
}
