// expect: kd::nn::sequential: the input is missing or empty
// expect: conv2d<8, 3
// errors: 1
#include "kd/cpu/device.hpp"
#include "kd/nn/layers.hpp"
#include "kd/nn/network.hpp"
#include "kd/nn/summary.hpp"

using namespace kd::nn;
using Model = sequential<conv2d<8, 3>, relu, flatten, linear<10>>;

int main() {
  kd::cpu::device device(1);
  kd::network<Model, kd::cpu::device> network(device, 0);
  network.backward(1, {});
  return network.forward_train(1, {}) == nullptr || summary<Model>().empty();
}
