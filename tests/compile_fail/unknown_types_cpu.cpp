// expect: kd::cpu::update: the optimiser must be a rule as kd/formula/rule.hpp says it
// expect: derived_adam
// expect: kd::train::trainer: the optimiser must be a rule as kd/formula/rule.hpp says it
// expect: half_a_rule
// expect: kd::each_option: a type must declare its options itself
// expect: reverse_kl
#include "kd/cpu/device.hpp"
#include "kd/nn/layers.hpp"
#include "kd/train/fit.hpp"

// Derived, so that every function of the base takes them: they would run as Adam and as distillation without a word.
struct derived_adam : kd::optim::adam {};
struct reverse_kl : kd::distillation {};

struct half_a_rule {
  double learning_rate = 1e-4, beta1 = 0.9, beta2 = 0.99;
};

using network = kd::network<kd::nn::sequential<kd::row<2>, kd::nn::linear<2>>, kd::cpu::device>;

void step(float* x, network& net, const kd::data::dataset& set, const kd::tensor<float, 2>& logits) {
  kd::cpu::update(kd::cpu::parallel{1}, derived_adam{}, 0.1, 1, 4, x, x, {x, x});
  kd::train::distil(net, logits, set, reverse_kl{}, kd::optim::adam{});
  kd::train::fit(net, set, half_a_rule{});
}
