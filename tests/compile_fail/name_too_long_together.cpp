// expect: a layer's name is longer than 63 characters
#include "kd/models/light_nn.hpp"

using namespace kd::nn;
using Model = sequential<kd::row<8>, named<"a_name_of_a_block_that_fits_into_its_64_characters",
                                           as<"and_of_a_layer_in_that_block", linear<4>>>>;
static_assert(plan_of<Model>::parameter_count > 0);
