/// What kd asks of the compiler, checked before anything that an older one cannot read: which compilers, C++20,
/// floating point that keeps NaN and infinity. Says once where a file is compiled without optimisation.
#pragma once

#if !defined(__GNUC__)
#error "kd needs g++ 12 or newer, or clang++ 18 or newer: it uses their vectors"
#define KD_STOP
#elif defined(__clang__) && !defined(__apple_build_version__) && __clang_major__ < 18
#error "kd needs clang++ 18 or newer: older ones reject floating-point template arguments"
#define KD_STOP
#elif !defined(__clang__) && __GNUC__ < 12
#error "kd needs g++ 12 or newer: older ones have no __builtin_shufflevector"
#define KD_STOP
#elif __cplusplus < 202002L
#error "kd needs C++20: compile with -std=c++20"
#define KD_STOP
#endif
#if defined(KD_STOP)
// A file that is not there ends the compilation; without it pages of errors would follow.
#include "kd stops here, see the error above"
#endif

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || defined(__ASSOCIATIVE_MATH__)
#error \
    "kd reports NaN and infinity, and its sums have an order: compile without -ffast-math, -Ofast, -ffinite-math-only and -funsafe-math-optimizations"
#endif

/// Whether this translation unit is compiled with optimisation (-O1 or more). Without it kd is about twenty times
/// slower, which the message below says once a file (clang++ hides it where kd is installed among the system's
/// headers). Define KD_NO_OPTIMISATION_NOTE to have it silent, in a debug build say.
#if defined(__OPTIMIZE__)
#define KD_OPTIMISED 1
#else
#define KD_OPTIMISED 0
#if !defined(KD_NO_OPTIMISATION_NOTE)
#pragma message( \
    "kd is compiled without optimisation and will be many times slower: compile with -O2, or choose a CMAKE_BUILD_TYPE such as Release; define KD_NO_OPTIMISATION_NOTE to silence this")
#endif
#endif
