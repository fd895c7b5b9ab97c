// expect: the input that a nested network declares must be what comes in there
// expect: shape\{5, 7, 7, false\}
// expect: "body"
// errors: 1
#include "kd/nn/layers.hpp"
#include "kd/nn/plan.hpp"

using namespace kd::nn;
using Body = sequential<kd::image<5, 7, 7>, conv2d<16, 3>, relu>;
using Model = sequential<kd::image<3, 32, 32>, as<"body", Body>, flatten, linear<10>>;
static_assert(plan_of<Model>::node_count < 100);
