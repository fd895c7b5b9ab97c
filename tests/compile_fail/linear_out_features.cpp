// expect: kd::nn::linear: out_features must be at least 1
#include "kd/models/light_nn.hpp"

using namespace kd::nn;
using Model = sequential<kd::row<8>, linear<0>>;
static_assert(plan_of<Model>::parameter_count == 0);
