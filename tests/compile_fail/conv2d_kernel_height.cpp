// expect: the incoming height plus padding must be at least the kernel
// expect: 4 >= 5
// errors: 1
#include "kd/models/light_nn.hpp"

using namespace kd::nn;
using Model = sequential<kd::image<3, 2, 9>, conv2d<4, 5, conv_options{.padding = 1}>>;
static_assert(plan_of<Model>::parameter_count < 100'000);
