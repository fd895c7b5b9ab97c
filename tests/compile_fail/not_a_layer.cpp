// expect: kd::nn: a network holds what is not a layer
// expect: not_a_layer<my_activation>
// expect: "body\.1"
// errors: 1
#include "kd/cpu/device.hpp"
#include "kd/nn/layers.hpp"
#include "kd/nn/network.hpp"
#include "kd/nn/summary.hpp"

using namespace kd::nn;
struct my_activation {};
using Model = sequential<kd::image<3, 8, 8>, named<"body", conv2d<4, 3>, my_activation>, flatten, linear<10>>;

int main() {
  kd::cpu::device device(1);
  kd::network<Model, kd::cpu::device> network(device, 0);
  network.backward(1, {});
  return network.forward_train(1, {}) == nullptr || summary<Model>().empty();
}
