// expect-gcc: kd needs g\+\+ 12 or newer
// expect-clang: kd needs clang\+\+ 18 or newer
// errors: 2
#if defined(__clang__)
#undef __clang_major__
#define __clang_major__ 17
#else
#undef __GNUC__
#define __GNUC__ 11
#endif
#include "kd/core/abi.hpp"
