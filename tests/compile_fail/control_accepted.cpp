// Must compile: shows that the other cases fail for what they say and not for a missing header or flag.
#include "kd/core/random.hpp"

static_assert(kd::random_at(1, kd::random_stream::shuffle, 2)[0] == kd::random_at(1, kd::random_stream::shuffle, 2)[0]);
