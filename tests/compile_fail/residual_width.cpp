// expect: the width of the main path must equal that of the shortcut
// expect: 2 == 4
// errors: 1
#include "kd/models/light_nn.hpp"

using namespace kd::nn;
using Model = sequential<kd::image<8, 1, 4>, residual<main_path<conv2d<8, 1, conv_options{.stride = 2}>>>>;
static_assert(plan_of<Model>::parameter_count > 0);
