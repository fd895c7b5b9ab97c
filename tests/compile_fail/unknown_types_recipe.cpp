// expect: kd::train::recipe: cannot describe this optimiser
// expect: derived_adam
// expect: kd::each_option: a type must declare its options itself
// expect: reverse_kl
#include "kd/loss/cross_entropy.hpp"
#include "kd/loss/distillation.hpp"
#include "kd/nn/layers.hpp"
#include "kd/train/recipe.hpp"

struct derived_adam : kd::optim::adam {};
// Derived, so that it would be written down as a distillation.
struct reverse_kl : kd::distillation {};

using model = kd::nn::sequential<kd::row<2>, kd::nn::linear<2>>;
kd::io::json of_optimiser() { return kd::train::recipe<model>(kd::cross_entropy{}, derived_adam{}, {}, {}); }
kd::io::json of_loss() { return kd::train::recipe<model>(reverse_kl{}, kd::optim::adam{}, {}, {}); }
