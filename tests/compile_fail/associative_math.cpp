// Clang does not tell of -funsafe-math-optimizations alone.
// flags-gcc: -funsafe-math-optimizations
// flags-clang: -ffast-math
// expect: -funsafe-math-optimizations
// errors: 1
#include "kd/core/abi.hpp"
