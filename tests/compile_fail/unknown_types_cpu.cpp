// expect: kd::cpu::device: the optimiser must be adam, adamw or sgd
// expect: kd::cpu::update: the optimiser must be adam, adamw or sgd
// expect: lion
// expect: kd: the loss must be cross_entropy or distillation
// expect: reverse_kl
#include "kd/cpu/device.hpp"

// Derived, so that every function of the base takes them: they would run as Adam and as distillation without a word.
struct lion : kd::optim::adam {};
struct reverse_kl : kd::distillation {};

void step(kd::cpu::device& device, float* x, kd::cpu::device::buffer<std::byte>& scratch) {
  device.update(lion{}, {}, x, x, x, x, x, nullptr);
  kd::cpu::update(kd::cpu::parallel{1}, lion{}, 0.1, 1, 4, x, x, x, x);
  device.accumulate_loss(reverse_kl{}, x, 1, 10, x, x, nullptr, x, scratch, nullptr);
}
