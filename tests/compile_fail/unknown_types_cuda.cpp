// expect: kd::cuda::device: the optimiser must be adam, adamw or sgd
// expect: lion
// expect: kd::cuda::device: the loss must be cross_entropy or distillation
// expect: reverse_kl
// expect: kd::cuda: images are float or kernel::bfloat16
#include "kd/cuda/device.hpp"

struct lion {
  double learning_rate = 1e-4, beta1 = 0.9, beta2 = 0.99;
  static constexpr int states = 1;
};
struct reverse_kl : kd::distillation {};

void step(kd::cuda::device& device, const kd::cuda::update_plan& plan, float* x,
          kd::cuda::device::buffer<std::byte>& scratch) {
  device.update(lion{}, plan, x, x, x, x, nullptr, nullptr);
  device.accumulate_loss(reverse_kl{}, x, 1, 10, x, x, nullptr, x, scratch, nullptr);
}
constexpr auto half = kd::cuda::detail::element_of<unsigned short>();
