// A mistake deep in a network names the layer as its weights are named, and is the one error of a program that trains.
// expect: the incoming height plus padding must be at least the kernel
// expect: "layer2\.0\.conv1"
// errors: 1
#include "kd/cpu/device.hpp"
#include "kd/nn/layers.hpp"
#include "kd/nn/network.hpp"
#include "kd/nn/summary.hpp"
#include "kd/train/live_parameters.hpp"

using namespace kd::nn;
using Model = sequential<kd::image<3, 8, 8>, as<"conv1", conv2d<8, 3>>, relu,
                         named<"layer2", residual<main_path<as<"conv1", conv2d<8, 11>>, batch_norm2d<>>>>,
                         global_avg_pool2d, flatten, linear<10>>;
static_assert(kd::train::live_parameters<Model>::count < 100'000);

int main() {
  kd::cpu::device device(1);
  kd::network<Model, kd::cpu::device> network(device, 0);
  network.backward(1, {});
  return network.forward_train(1, {}) == nullptr || summary<Model>().empty();
}
