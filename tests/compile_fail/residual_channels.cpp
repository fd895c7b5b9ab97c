// expect: the channels of the main path must equal those of the shortcut
// expect: 16 == 8
// errors: 1
#include "kd/models/light_nn.hpp"

using namespace kd::nn;
using Model = sequential<kd::image<8, 4, 4>, residual<main_path<conv2d<16, 1>>>>;
static_assert(plan_of<Model>::parameter_count > 0);
