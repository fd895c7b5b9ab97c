/// The version of kd and the inline namespace that holds all of it.
///
/// The namespace carries major.minor, the instruction set and the threading of the translation unit: code compiled
/// under different flags gets different names, so that the linker never picks an AVX-512 copy of an inline function for
/// a program that was built for less (the fault of highway #2364).
#pragma once

#include "kd/core/compiler.hpp"
#include "kd/core/instruction_set.hpp"

#define KD_VERSION_MAJOR 0
#define KD_VERSION_MINOR 1
#define KD_VERSION_PATCH 0

#if defined(_OPENMP)
#define KD_THREADING openmp
#else
#define KD_THREADING serial
#endif

#define KD_JOIN_NAMES_(major, minor, isa, threading) v##major##_##minor##_##isa##_##threading
#define KD_JOIN_NAMES(major, minor, isa, threading) KD_JOIN_NAMES_(major, minor, isa, threading)
#define KD_ABI KD_JOIN_NAMES(KD_VERSION_MAJOR, KD_VERSION_MINOR, KD_INSTRUCTION_SET, KD_THREADING)

/// Defined where the translation unit is compiled for CUDA: kd::cuda is then the real thing.
#if defined(__CUDACC__) && !defined(KD_CUDA)
#define KD_CUDA 1
#endif
/// In front of a function that a CUDA kernel may call.
#if defined(KD_CUDA)
#define KD_HOST_DEVICE __host__ __device__
#else
#define KD_HOST_DEVICE
#endif

namespace kd::inline KD_ABI {

/// The version as text, "0.1.0".
#define KD_TEXT_OF_(x) #x
#define KD_TEXT_OF(x) KD_TEXT_OF_(x)
inline constexpr const char* version =
    KD_TEXT_OF(KD_VERSION_MAJOR) "." KD_TEXT_OF(KD_VERSION_MINOR) "." KD_TEXT_OF(KD_VERSION_PATCH);
/// The instruction set that this translation unit was compiled for: "avx512", "avx2_fma", "sse2", "neon", ...
inline constexpr const char* instruction_set = KD_TEXT_OF(KD_INSTRUCTION_SET);
#undef KD_TEXT_OF
#undef KD_TEXT_OF_

}  // namespace kd::inline KD_ABI
