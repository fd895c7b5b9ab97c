// expect: the width \[32\] must be even
static_assert(false, "the width [31] must be even");
