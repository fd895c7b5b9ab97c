/// Several numbers that one instruction moves, up to 16 bytes per load or store.
#pragma once

#include "kd/kernel/number.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// N consecutive T at an address that is a multiple of their size.
template <class T, unsigned N>
struct alignas(N * sizeof(T)) pack {
  T at[N];
};

/// How many T one 16-byte access moves.
template <class T>
inline constexpr unsigned pack_width = 16 / sizeof(T);

/// Loads Width numbers (a power of two) as floats; `from` is a multiple of min(16, Width * sizeof(T)) bytes.
template <unsigned Width, class T>
__device__ void load_floats(const T* from, float (&to)[Width]) {
  constexpr unsigned each = Width < pack_width<T> ? Width : pack_width<T>;
#pragma unroll
  for (unsigned i = 0; i < Width; i += each) {
    const auto loaded = *reinterpret_cast<const pack<T, each>*>(from + i);
#pragma unroll
    for (unsigned j = 0; j < each; ++j) to[i + j] = to_float(loaded.at[j]);
  }
}

/// Stores Width floats as T, each rounded to nearest even; the alignment of `to` as for load_floats.
template <unsigned Width, class T>
__device__ void store_floats(const float (&from)[Width], T* to) {
  constexpr unsigned each = Width < pack_width<T> ? Width : pack_width<T>;
#pragma unroll
  for (unsigned i = 0; i < Width; i += each) {
    pack<T, each> rounded;
#pragma unroll
    for (unsigned j = 0; j < each; ++j) rounded.at[j] = from_float<T>(from[i + j]);
    *reinterpret_cast<pack<T, each>*>(to + i) = rounded;
  }
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
