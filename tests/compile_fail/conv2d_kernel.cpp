// expect: kd::nn::conv2d: the kernel must be at least 1
// errors: 1
#include "kd/models/light_nn.hpp"

using namespace kd::nn;
static_assert((conv2d<4, 0>::check<kd::image_shape(3, 8, 8)>(), true));
