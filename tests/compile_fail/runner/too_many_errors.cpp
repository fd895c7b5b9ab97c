// expect: must hold
// errors: 1
static_assert(false, "this must hold");
static_assert(false, "and this");
