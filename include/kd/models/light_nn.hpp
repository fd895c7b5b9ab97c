/// LightNN, the larger student of the report and of PyTorch's knowledge distillation tutorial.
#pragma once

#include "kd/nn/layers.hpp"

namespace kd::inline KD_ABI::models {

/// Two 3x3 convolutions of 16 channels, each with relu and 2x2 pooling, and two linear layers.
template <std::size_t Classes = 10>
using LightNNOf = nn::sequential<
    image<3, 32, 32>,
    nn::named<"features", nn::conv2d<16, 3, nn::conv_options{.padding = 1}>, nn::relu,          // [N,16,32,32]
              nn::max_pool2d<2>,                                                                // [N,16,16,16]
              nn::conv2d<16, 3, nn::conv_options{.padding = 1}>, nn::relu, nn::max_pool2d<2>>,  // [N,16,8,8]
    nn::flatten,                                                                                // [N,1024]
    nn::named<"classifier", nn::linear<256>, nn::relu, nn::dropout<0.1f>, nn::linear<Classes>>>;

using LightNN = LightNNOf<>;
static_assert(nn::plan_of<LightNN>::parameter_count == 267'738);

}  // namespace kd::inline KD_ABI::models
