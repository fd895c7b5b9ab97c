// expect: kd::network: the plan merges into this layer what its forward and backward do not do
#include "kd/cpu/device.hpp"
#include "kd/nn/layers.hpp"
#include "kd/nn/network.hpp"

// Says that it is a convolution, after which a relu is merged into it, and does none.
struct plain : kd::nn::layer_base {
  static constexpr kd::shape output(kd::shape in) { return in; }
  template <kd::shape In, kd::nn::fusion, class Device>
  static void forward(Device& device, const kd::nn::forward_pass& p) {
    device.copy(In, p.batch, p.x, p.y);
  }
};
template <>
inline constexpr auto kd::nn::kind_of<plain> = kd::nn::layer_kind::linear;

using model = kd::nn::sequential<kd::image<3, 8, 8>, plain, kd::nn::relu>;
const float* forward(kd::network<model, kd::cpu::device>& network) { return network.forward_infer(1); }
