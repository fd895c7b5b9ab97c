/// The trainings whose losses two devices, or two instruction sets of one, must agree on, and for how many steps.
///
/// Only rounding tells the two apart, and training amplifies it: a weight that Adam moves by the sign of its gradient,
/// a relu at its corner. After 50 steps the CPU device, compiled with and without FMA, differs from itself by more than
/// a thousandth. So each training has the steps in which that difference stays below a fifth of the tolerance;
/// tests/train/parity_test.cpp holds it to that, and tests/cuda/parity_test.cpp the CUDA device to the tolerance.
#pragma once

#include <kd/kd.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kd_test {

/// A training of `Model`: from logits that are made up where `distilled`, else by cross entropy.
template <class Model, class Optimiser = kd::optim::adam>
struct parity_training {
  using model = Model;
  bool distilled;
  kd::augmentation augment = {};
  Optimiser optimiser = {};
  std::size_t steps;        // of 128 images
  double tolerance = 1e-3;  // of a step's loss, relative
};

// The largest relative difference of the CPU device's losses with FMA (x86-64-v3) and without (v2), over three seeds,
// by test.train.parity_test "[figures]":
//                        until step 8       12       20       30
//   SimpleNN, distilled      1.1e-8   2.6e-8   7.2e-6   2.1e-5
//   LightNN, distilled       9.7e-7   1.1e-5   4.4e-5   5.6e-4
//   LightNN, augmented       1.0e-6   3.1e-6   7.2e-5   4.6e-4
//   ResNet18                 3.5e-5   1.6e-4
inline constexpr parity_training<kd::models::SimpleNN> simple_nn_distilled{.distilled = true, .steps = 20};
inline constexpr parity_training<kd::models::LightNN> light_nn_distilled{.distilled = true, .steps = 20};
inline constexpr parity_training<kd::models::LightNN> light_nn_augmented{
    .distilled = false, .augment = {.crop_padding = 4, .flip = true}, .steps = 20};
// Small steps of SGD, since ResNet18 amplifies roundings most: with Adam at 0.001 and batches of 4, initial weights
// that are changed by 1e-6 of themselves change the third loss by 7 %. What Adam does to ResNet18 is held against
// PyTorch in tests/cuda/golden_step_test.cpp.
inline constexpr parity_training<kd::models::ResNet18, kd::optim::sgd> resnet18{
    .distilled = false, .optimiser = {.learning_rate = 1e-4}, .steps = 8};

/// What a training left behind.
struct parity_run {
  std::vector<kd::loss_terms> terms;  // of each step
  std::vector<float> initial, weights, state;
};

/// How much of a training is done: the first `steps` steps of an epoch of `steps_in_all`.
struct parity_length {
  std::size_t steps, steps_in_all = 50, batch = 128;
};

/// Does a training; `seed` 0 is the one that steps and tolerances are for.
template <class Training, class Device>
parity_run run_parity(Device& device, const Training& training, const parity_length& length, std::uint64_t seed = 0) {
  using network = kd::network<typename Training::model, Device>;
  const kd::data::dataset set = kd::data::synthetic_shapes({.train = length.batch * length.steps_in_all, .test = 1});
  network net(device, 5 + seed);
  const auto all = [&](const float* from, std::size_t n) {
    std::vector<float> host(n);
    device.download(from, n, host.data());
    return host;
  };
  parity_run out;
  out.initial = all(net.parameters(), net.parameter_floats);
  const kd::train::options settings{.batch_size = length.batch, .seed = 3 + seed, .augment = training.augment};
  const auto run = [&](auto& trainer) {
    trainer.begin_epoch(0);
    for (std::size_t b = 0; b < length.steps; ++b) out.terms.push_back(trainer.step(b));
  };
  using optimiser = decltype(training.optimiser);
  if (training.distilled) {
    kd::tensor<float, 2> logits({set.train.size(), set.classes});
    for (std::size_t i = 0; i < logits.size(); ++i)
      logits.data()[i] =
          8 * kd::uniform(kd::random_at(9, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i))[0]);
    kd::train::trainer<network, kd::distillation, optimiser, kd::train::cached_teacher> trainer(
        net, set, {}, training.optimiser, settings, {&logits});
    run(trainer);
  } else {
    kd::train::trainer<network, kd::cross_entropy, optimiser> trainer(net, set, {}, training.optimiser, settings);
    run(trainer);
  }
  out.weights = all(net.parameters(), net.parameter_floats);
  out.state = all(net.state(), net.state_floats);
  return out;
}

}  // namespace kd_test
