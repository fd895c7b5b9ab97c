#include "everything.hpp"

const char* other_unit_version();
const char* other_unit_version() { return kd::version; }
