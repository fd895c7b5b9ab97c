// flags: -DKD_CASE_FLAG
// expect: must hold
#if !defined(KD_CASE_FLAG)
static_assert(false, "this must hold");
#endif
