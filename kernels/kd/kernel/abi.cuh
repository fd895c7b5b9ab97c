/// What every kernel header begins with: the namespace, visibility, and dynamic shared memory.
///
/// Kernels are hidden symbols in a namespace that carries the architectures they are compiled for, so that neither two
/// shared libraries nor two translation units with other -arch flags ever share one (CCCL #443). Kernels include kernel
/// headers alone; nvcc brings its own declarations along, and tests/simt brings them for a host compiler.
#pragma once

#include <cstddef>
#include <cstdint>

#define KD_HIDDEN __attribute__((visibility("hidden")))
/// In front of every kernel's return type.
#ifndef KD_KERNEL
#define KD_KERNEL __global__ KD_HIDDEN
#endif

#define KD_ARCH_1(a) sm_##a
#define KD_ARCH_2(a, b) sm_##a##_##b
#define KD_ARCH_3(a, b, c) sm_##a##_##b##_##c
#define KD_ARCH_4(a, b, c, d) sm_##a##_##b##_##c##_##d
#define KD_ARCH_5(a, b, c, d, e) sm_##a##_##b##_##c##_##d##_##e
#define KD_ARCH_6(a, b, c, d, e, f) sm_##a##_##b##_##c##_##d##_##e##_##f
#define KD_ARCH_7(a, b, c, d, e, f, g, ...) sm_##a##_##b##_##c##_##d##_##e##_##f##_##g##_more
#define KD_ARCH_PICK(a, b, c, d, e, f, g, h, i, j, name, ...) name
#define KD_ARCH_NAME(...)                                                                                           \
  KD_ARCH_PICK(__VA_ARGS__, KD_ARCH_7, KD_ARCH_7, KD_ARCH_7, KD_ARCH_7, KD_ARCH_6, KD_ARCH_5, KD_ARCH_4, KD_ARCH_3, \
               KD_ARCH_2, KD_ARCH_1, )                                                                              \
  (__VA_ARGS__)
#if defined(__CUDA_ARCH_LIST__)
#define KD_KERNEL_ABI KD_ARCH_NAME(__CUDA_ARCH_LIST__)
#else
#define KD_KERNEL_ABI host
#endif

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// As a template argument: what is made with it is a hidden symbol, as KD_HIDDEN would have it, and still takes types
/// of an unnamed namespace, at which nvcc rejects that attribute.
struct KD_HIDDEN not_shared {};

/// Threads of a warp, on every architecture so far.
inline constexpr unsigned warp_size = 32;
inline constexpr unsigned full_warp = 0xffffffffu;

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop

/// Inside a kernel: `name` points to the block's dynamic shared memory, aligned to 16 bytes.
#ifndef KD_DYNAMIC_SHARED
#define KD_DYNAMIC_SHARED(type, name)                                \
  extern __shared__ __align__(16) unsigned char kd_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(kd_dynamic_shared)
#endif
