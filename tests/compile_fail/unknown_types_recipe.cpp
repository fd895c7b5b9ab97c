// expect: kd::train::recipe: cannot describe this loss or optimiser
// expect: lion
// expect: reverse_kl
#include "kd/nn/layers.hpp"
#include "kd/train/recipe.hpp"

struct lion {
  double learning_rate = 1e-4, beta1 = 0.9, beta2 = 0.99, epsilon = 0, weight_decay = 0;
  static constexpr const char* name = "lion";
};
struct reverse_kl : kd::distillation {};

using model = kd::nn::sequential<kd::row<2>, kd::nn::linear<2>>;
kd::io::json of_optimiser() { return kd::train::recipe<model>(kd::cross_entropy{}, lion{}, {}, {}); }
kd::io::json of_loss() { return kd::train::recipe<model>(reverse_kl{}, kd::optim::adam{}, {}, {}); }
