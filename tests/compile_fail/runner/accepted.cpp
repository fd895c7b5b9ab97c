// expect: must hold
static_assert(true, "must hold");
