// expect: put kd::nn::flatten before it
// errors: 1
#include "kd/models/light_nn.hpp"

using namespace kd::nn;
using Model = sequential<kd::image<3, 8, 8>, linear<10>>;
static_assert(plan_of<Model>::parameter_count < 100'000);
