// expect: kd::nn::conv2d: initial must be uniform_fan_in or kaiming_normal_fan_out
#include "kd/nn/layers.hpp"
#include "kd/nn/plan.hpp"

constexpr kd::nn::conv_options options{.initial = static_cast<kd::nn::conv_initial>(7)};
using model = kd::nn::sequential<kd::image<3, 8, 8>, kd::nn::conv2d<4, 3, options>>;
static_assert(kd::nn::plan_of<model>::parameter_count > 0);
