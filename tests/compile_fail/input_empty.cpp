// expect: kd::nn::sequential: the input is missing or empty
// expect: image<3, 0, 8>
// errors: 1
#include "kd/nn/layers.hpp"
#include "kd/nn/plan.hpp"

using namespace kd::nn;
using Model = sequential<kd::image<3, 0, 8>, conv2d<8, 3>>;
static_assert(plan_of<Model>::node_count < 100);
