// expect: kd::nn::conv2d: the incoming shape must be an image
// errors: 1
#include "kd/models/light_nn.hpp"

using namespace kd::nn;
using Model = sequential<kd::row<8>, conv2d<4, 3>>;
static_assert(plan_of<Model>::parameter_count < 100'000);
