// flags: -ffinite-math-only
// expect: compile without -ffast-math, -Ofast, -ffinite-math-only
// errors: 1
#include "kd/core/abi.hpp"
