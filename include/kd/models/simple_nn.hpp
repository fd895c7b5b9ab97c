/// SimpleNN, the smaller student of the report.
#pragma once

#include "kd/nn/layers.hpp"

namespace kd::inline KD_ABI::models {

/// As LightNN with 8 channels, a hidden layer of 64, and twice its dropout.
template <std::size_t Classes = 10>
using SimpleNNOf = nn::sequential<
    image<3, 32, 32>,
    nn::named<"features", nn::conv2d<8, 3, nn::conv_options{.padding = 1}>, nn::relu,          // [N,8,32,32]
              nn::max_pool2d<2>,                                                               // [N,8,16,16]
              nn::conv2d<8, 3, nn::conv_options{.padding = 1}>, nn::relu, nn::max_pool2d<2>>,  // [N,8,8,8]
    nn::flatten,                                                                               // [N,512]
    nn::named<"classifier", nn::linear<64>, nn::relu, nn::dropout<0.2f>, nn::linear<Classes>>>;

using SimpleNN = SimpleNNOf<>;
static_assert(nn::plan_of<SimpleNN>::parameter_count == 34'290);

}  // namespace kd::inline KD_ABI::models
