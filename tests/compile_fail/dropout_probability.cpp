// expect: kd::nn::dropout: the probability must be at least 0 and below 1
#include "kd/models/light_nn.hpp"

using namespace kd::nn;
using Model = sequential<kd::row<8>, dropout<1.0f>>;
static_assert(plan_of<Model>::parameter_count == 0);
