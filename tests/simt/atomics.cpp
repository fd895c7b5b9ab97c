// Atomic operations: plain code, since one operating system thread runs all fibers.
#include "atomics.hpp"

#include <algorithm>
#include <type_traits>

#include "watch.hpp"

namespace simt {

template <class T>
T atomic_update(atomic operation, T* at, T value) {
  watch_atomic(at, sizeof(T), __builtin_return_address(0));
  const T old = *at;
  switch (operation) {
    case atomic::add:
      *at = static_cast<T>(old + value);
      break;
    case atomic::sub:
      *at = static_cast<T>(old - value);
      break;
    case atomic::min:
      *at = std::min(old, value);
      break;
    case atomic::max:
      *at = std::max(old, value);
      break;
    case atomic::exchange:
      *at = value;
      break;
    default:
      if constexpr (std::is_integral_v<T>)
        *at = operation == atomic::bit_and ? old & value : operation == atomic::bit_or ? old | value : old ^ value;
  }
  return old;
}

template <class T>
T atomic_compare(T* at, T expected, T value) {
  watch_atomic(at, sizeof(T), __builtin_return_address(0));
  const T old = *at;
  if (old == expected) *at = value;
  return old;
}

template int atomic_update(atomic, int*, int);
template unsigned atomic_update(atomic, unsigned*, unsigned);
template unsigned long long atomic_update(atomic, unsigned long long*, unsigned long long);
template float atomic_update(atomic, float*, float);
template double atomic_update(atomic, double*, double);
template int atomic_compare(int*, int, int);
template unsigned atomic_compare(unsigned*, unsigned, unsigned);
template unsigned long long atomic_compare(unsigned long long*, unsigned long long, unsigned long long);

}  // namespace simt
