// expect: the layer's output\(\) is empty for the shape that comes in
// expect: "2"
// errors: 1
#include "kd/cpu/device.hpp"
#include "kd/nn/layers.hpp"
#include "kd/nn/network.hpp"
#include "kd/nn/summary.hpp"

using namespace kd::nn;
// Follows kd's own layers: the empty shape for an input that it does not accept. It has no check() that says so.
struct for_rows : layer_base {
  static constexpr kd::shape output(kd::shape in) { return in.row ? in : kd::shape{}; }
  template <kd::shape In, fusion, class Device>
  static void forward(Device& device, const forward_pass& p) {
    device.copy(In, p.batch, p.x, p.y);
  }
  template <kd::shape In, fusion, class Device>
  static void backward(Device& device, const backward_pass& p) {
    device.copy(In, p.batch, p.dy, p.dx);
  }
};
using Model = sequential<kd::image<3, 32, 32>, conv2d<4, 3>, relu, for_rows, flatten, linear<10>>;

int main() {
  kd::cpu::device device(1);
  kd::network<Model, kd::cpu::device> network(device, 0);
  network.backward(1, {});
  return network.forward_train(1, {}) == nullptr || summary<Model>().empty();
}
