/// Several numbers that one instruction moves, up to 16 bytes per load or store.
#pragma once

#include <type_traits>

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
__device__ void load_floats(const T* from, float* to) {
  constexpr unsigned each = Width < pack_width<T> ? Width : pack_width<T>;
#pragma unroll
  for (unsigned i = 0; i < Width; i += each) {
    const auto loaded = *reinterpret_cast<const pack<T, each>*>(from + i);
#pragma unroll
    for (unsigned j = 0; j < each; ++j) to[i + j] = to_float(loaded.at[j]);
  }
}

/// Two floats, each rounded to nearest even; all NaNs become one.
__device__ inline pack<bfloat16, 2> rounded_pair(float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  std::uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
  pack<bfloat16, 2> pair;
  __builtin_memcpy(&pair, &bits, sizeof bits);
  return pair;
#else
  return {{from_float<bfloat16>(first), from_float<bfloat16>(second)}};
#endif
}

/// A store of 4, 8 or 16 bytes that caches are to forget before anything else.
template <class Pack>
__device__ void store_streaming(const Pack& value, Pack* to) {
  using word = std::conditional_t<sizeof(Pack) == 16, uint4, std::conditional_t<sizeof(Pack) == 8, uint2, unsigned>>;
  static_assert(sizeof(Pack) == sizeof(word), "kd::kernel: one instruction stores 4, 8 or 16 bytes");
  word bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  __stcs(reinterpret_cast<word*>(to), bits);
}

/// Stores Width floats as T, each rounded to nearest even; the alignment of `to` as for load_floats.
template <unsigned Width, bool Streaming = false, class T>
__device__ void store_floats(const float* from, T* to) {
  constexpr unsigned each = Width < pack_width<T> ? Width : pack_width<T>;
#pragma unroll
  for (unsigned i = 0; i < Width; i += each) {
    pack<T, each> rounded;
#pragma unroll
    for (unsigned j = 0; j < each; ++j) {
      if constexpr (std::is_same_v<T, bfloat16> && each % 2 == 0) {
        if (j % 2 == 1) continue;
        const pack<bfloat16, 2> pair = rounded_pair(from[i + j], from[i + j + 1]);
        rounded.at[j] = pair.at[0];
        rounded.at[j + 1] = pair.at[1];
      } else {
        rounded.at[j] = from_float<T>(from[i + j]);
      }
    }
    auto* const place = reinterpret_cast<pack<T, each>*>(to + i);
    if constexpr (Streaming)
      store_streaming(rounded, place);
    else
      *place = rounded;
  }
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
