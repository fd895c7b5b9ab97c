// expect: kd::cuda::update: the optimiser must be a rule as kd/formula/rule.hpp says it
// expect: derived_adam
// expect: kd::cuda: images are float or kernel::bfloat16
#include "kd/cuda/device.hpp"

struct derived_adam : kd::optim::adam {};

void step(kd::cuda::device& device, const kd::cuda::update_plan& plan, float* x) {
  device.update(derived_adam{}, plan, nullptr, x, x, {x, x}, nullptr);
}
constexpr auto half = kd::cuda::detail::element_of<unsigned short>();
