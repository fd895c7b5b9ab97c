// expect: a residual holds main_path<...> and shortcut<...>
// errors: 1
#include "kd/nn/layers.hpp"
#include "kd/nn/plan.hpp"

using namespace kd::nn;
using Model = sequential<kd::image<8, 4, 4>, residual<conv2d<8, 1>>>;
static_assert(plan_of<Model>::node_count < 100);
