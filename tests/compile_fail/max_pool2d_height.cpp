// expect: kd::nn::max_pool2d: the incoming height plus padding must be at least the kernel
// expect: 1 >= 2
// errors: 1
#include "kd/models/light_nn.hpp"

using namespace kd::nn;
using Model = sequential<kd::image<3, 1, 8>, max_pool2d<2>>;
static_assert(plan_of<Model>::parameter_count == 0);
