static_assert(false, "a case must name this");
