// expect: kd needs g\+\+ 12 or newer, or clang\+\+ 18 or newer
// errors: 2
#undef __GNUC__
#include "kd/core/abi.hpp"
