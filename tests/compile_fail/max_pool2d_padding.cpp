// expect: twice the padding must be at most the kernel
// expect: 4 <= 3
#include "kd/models/light_nn.hpp"

using namespace kd::nn;
static_assert((max_pool2d<3, pool_options{.padding = 2}>::check<kd::image_shape(3, 8, 8)>(), true));
