// flags: -ffast-math
// expect: compile without -ffast-math
// errors: 1
#include "kd/core/abi.hpp"
