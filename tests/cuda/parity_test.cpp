/// The trainings of tests/support/parity_training.hpp on the CPU device and on the CUDA device, step by step.
///
/// Under the emulation 3 steps of 4 images. On a GPU batches of 128, and 50 steps where the CUDA device is only held
/// against itself.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/parity_training.hpp"

using namespace kd_test;

namespace {

#if defined(KD_SIMT)
constexpr std::size_t parity_steps = 3, parity_batch = 4;
#else
constexpr std::size_t parity_steps = 50, parity_batch = 128;
#endif

/// So many of them.
constexpr parity_length parity_of(std::size_t steps) {
  return {.steps = std::min(steps, parity_steps), .steps_in_all = parity_steps, .batch = parity_batch};
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

/// Losses of the first `steps` steps agree to `tolerance`, relative, and are of as many rows.
comparison losses_agree(const parity_run& want, const parity_run& got, std::size_t steps, double tolerance) {
  comparison losses("loss of step");
  if (want.terms.size() < steps) losses.add_size(want.terms.size(), steps);
  if (got.terms.size() < steps) losses.add_size(got.terms.size(), steps);
  for (std::size_t i = 0; i < std::min({steps, want.terms.size(), got.terms.size()}); ++i) {
    losses.add(got.terms[i].total, want.terms[i].total, tolerance * std::abs(want.terms[i].total));
    losses.add_size(got.terms[i].rows, want.terms[i].rows);
  }
  return losses;
}

/// Equal initial weights; the losses of fp32 as the training says; a second run of the same seed bit-equal.
template <class Training>
void check_parity(const Training& training) {
  const std::size_t steps = std::min(training.steps, parity_steps);
  kd::cpu::device cpu(2);
  const parity_run want = run_parity(cpu, training, parity_of(steps));
  kd::cuda::device first, second;
  const parity_run got = run_parity(first, training, parity_of(parity_steps));
  CHECK(same_bits(got.initial, want.initial));
  CHECK_FALSE(same_bits(got.weights, got.initial));
  CHECK(losses_agree(want, got, steps, training.tolerance));
  const parity_run again = run_parity(second, training, parity_of(parity_steps));
  CHECK(same_bits(again.weights, got.weights));
  CHECK(same_bits(again.state, got.state));
  for (std::size_t i = 0; i < parity_steps; ++i) CHECK(again.terms[i].total == got.terms[i].total);
}

}  // namespace

TEST_CASE("cuda SimpleNN: distilled steps agree with the CPU's and repeat to the bit", "[cuda][parity]") {
  check_parity(simple_nn_distilled);
}

TEST_CASE("cuda LightNN: distilled steps agree with the CPU's and repeat to the bit", "[cuda][parity]") {
  check_parity(light_nn_distilled);
}

TEST_CASE("cuda LightNN: augmented steps agree with the CPU's", "[cuda][parity]") { check_parity(light_nn_augmented); }

TEST_CASE("cuda LightNN: tf32 and bf16 stay near fp32", "[cuda][parity][precision]") {
  kd::cpu::device cpu(2);
  const parity_length length = parity_of(20);
  const parity_run want = run_parity(cpu, light_nn_distilled, length);
  for (const kd::precision p : {kd::precision::tf32, kd::precision::bf16}) {
    kd::cuda::device device({.precision = p});
    // The CPU device with the factors of its products rounded to 10 bits of fraction differs by at most 1.5e-3 in 20
    // steps (three seeds), with factors and images rounded to bfloat16 by 2.1e-3.
    CHECK(losses_agree(want, run_parity(device, light_nn_distilled, length), length.steps, 2e-2));
  }
}

TEST_CASE("cuda ResNet18: steps agree with the CPU's and repeat to the bit", "[cuda][parity]") {
  check_parity(resnet18);
}
