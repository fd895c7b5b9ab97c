// expect: the incoming width plus padding must be at least the kernel
// expect: 2 >= 3
// errors: 1
#include "kd/models/light_nn.hpp"

using namespace kd::nn;
using Model = sequential<kd::image<3, 9, 2>, conv2d<4, 3>>;
static_assert(plan_of<Model>::parameter_count < 100'000);
