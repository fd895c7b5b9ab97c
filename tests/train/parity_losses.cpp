/// The losses of tests/support/parity_training.hpp by the CPU device. Compiled for two instruction sets, with KD_LOSSES
/// as the name of the function and kd_test as another name of the namespace, so that neither takes the other's code.
#include "support/parity_training.hpp"

std::vector<double> KD_LOSSES(int training, std::size_t steps, std::uint64_t seed) {
  using namespace kd_test;
  kd::cpu::device cpu(1);
  const auto losses = [&](const auto& one) {
    std::vector<double> all;
    for (const kd::loss_terms& terms : run_parity(cpu, one, {.steps = steps}, seed).terms) all.push_back(terms.total);
    return all;
  };
  switch (training) {
    case 0:
      return losses(simple_nn_distilled);
    case 1:
      return losses(light_nn_distilled);
    case 2:
      return losses(light_nn_augmented);
    case 3:
      return losses(resnet18);
    default:
      return {};
  }
}
