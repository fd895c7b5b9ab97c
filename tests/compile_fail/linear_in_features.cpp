// expect: in_features must equal the width of the incoming row
// expect: 512 == 1024
// errors: 1
#include "kd/models/light_nn.hpp"

using namespace kd::nn;
using Model = sequential<kd::row<1024>, linear<10, linear_options{.in_features = 512}>>;
static_assert(plan_of<Model>::parameter_count > 0);
