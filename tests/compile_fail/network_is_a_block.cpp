// expect: kd::nn: a network is a kd::nn::sequential<input, layers...>
// errors: 1
#include "kd/nn/layers.hpp"
#include "kd/nn/plan.hpp"

using namespace kd::nn;
static_assert(plan_of<block<conv2d<8, 3>, relu>>::node_count < 100);
