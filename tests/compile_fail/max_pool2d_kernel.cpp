// expect: kd::nn::max_pool2d: the kernel must be between 1 and 15
// errors: 1
#include "kd/models/light_nn.hpp"

using namespace kd::nn;
static_assert((max_pool2d<16>::check<kd::image_shape(3, 32, 32)>(), true));
