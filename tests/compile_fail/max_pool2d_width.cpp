// expect: kd::nn::max_pool2d: the incoming width plus padding must be at least the kernel
// expect: 1 >= 2
// errors: 1
#include "kd/models/light_nn.hpp"

using namespace kd::nn;
using Model = sequential<kd::image<3, 8, 1>, max_pool2d<2>>;
static_assert(plan_of<Model>::parameter_count == 0);
