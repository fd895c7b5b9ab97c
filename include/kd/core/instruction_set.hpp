/// The instruction set that this translation unit is compiled for, decided here alone: its name, how many floats its
/// vectors hold, and whether it multiplies and adds in one step.
///
/// One name means one width and one FMA. The name is in the namespace of everything (core/abi.hpp): what decides
/// between machine codes of one inline function must be told apart here. Extensions that change neither, such as BMI2,
/// F16C or VNNI, share a name; link files that differ in these alone only for machines that have them all.
#pragma once

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define KD_INSTRUCTION_SET avx512
#define KD_NATIVE_WIDTH 16
#define KD_FMA 1
#elif defined(__AVX512F__)
#define KD_INSTRUCTION_SET avx512f
#define KD_NATIVE_WIDTH 16
#define KD_FMA 1  // its own, also where the compiler was not told -mfma
#elif defined(__AVX2__) && defined(__FMA__)
#define KD_INSTRUCTION_SET avx2_fma
#define KD_NATIVE_WIDTH 8
#define KD_FMA 1
#elif defined(__FMA__)
#define KD_INSTRUCTION_SET avx_fma
#define KD_NATIVE_WIDTH 4
#define KD_FMA 1
#elif defined(__FMA4__)
#define KD_INSTRUCTION_SET avx_fma4
#define KD_NATIVE_WIDTH 4
#define KD_FMA 1
#elif defined(__AVX2__)
#define KD_INSTRUCTION_SET avx2
#define KD_NATIVE_WIDTH 8
#elif defined(__AVX__)
#define KD_INSTRUCTION_SET avx
#elif defined(__SSE4_2__)
#define KD_INSTRUCTION_SET sse4_2
#elif defined(__SSE4_1__)
#define KD_INSTRUCTION_SET sse4_1
#elif defined(__SSSE3__)
#define KD_INSTRUCTION_SET ssse3
#elif defined(__SSE3__)
#define KD_INSTRUCTION_SET sse3
#elif defined(__SSE2__)
#define KD_INSTRUCTION_SET sse2
#elif defined(__ARM_FEATURE_SVE)
#define KD_INSTRUCTION_SET sve
#define KD_FMA 1
#elif defined(__ARM_NEON) && defined(__ARM_FEATURE_FMA)
#define KD_INSTRUCTION_SET neon
#define KD_FMA 1
#elif defined(__ARM_NEON)
#define KD_INSTRUCTION_SET neon_without_fma
#elif defined(__FP_FAST_FMAF)
#define KD_INSTRUCTION_SET generic_fma
#define KD_FMA 1
#else
#define KD_INSTRUCTION_SET generic
#endif

// Vectors of 4 floats where the set has no wider one for floats and for integers; no FMA unless it is named above.
#if !defined(KD_NATIVE_WIDTH)
#define KD_NATIVE_WIDTH 4
#endif
#if !defined(KD_FMA)
#define KD_FMA 0
#endif
