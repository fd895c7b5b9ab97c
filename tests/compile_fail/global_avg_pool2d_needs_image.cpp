// expect: kd::nn::global_avg_pool2d: the incoming shape must be an image
#include "kd/models/light_nn.hpp"

using namespace kd::nn;
using Model = sequential<kd::row<8>, global_avg_pool2d>;
static_assert(plan_of<Model>::parameter_count == 0);
