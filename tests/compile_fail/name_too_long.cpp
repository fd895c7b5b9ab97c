// expect: a layer's name is longer than 63 characters
#include "kd/models/light_nn.hpp"

using namespace kd::nn;
using Model =
    sequential<kd::row<8>, as<"a_name_that_goes_on_and_on_until_it_does_not_fit_into_its_64_characters", linear<4>>>;
static_assert(plan_of<Model>::parameter_count > 0);
