// expect: kd::step_scalars: a loss has at most 64 bytes
#include "kd/core/step_scalars.hpp"

struct many_weights {
  float weights[32];
};
void write(const many_weights& loss, kd::step_scalars& step) { kd::write_loss(loss, step); }
