// flags: -std=c++17
// expect: kd needs C\+\+20: compile with -std=c\+\+20
// errors: 2
#include "kd/kd.hpp"
