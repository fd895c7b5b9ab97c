// expect: the main path and the shortcut must both give an image, or both a row of features
// expect: "0\.add"
// errors: 1
#include "kd/nn/layers.hpp"
#include "kd/nn/plan.hpp"

using namespace kd::nn;
using Model = sequential<kd::image<8, 1, 1>, residual<main_path<flatten>>>;
static_assert(plan_of<Model>::node_count < 100);
