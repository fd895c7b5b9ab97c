/// Two instruction sets of the CPU agree on the losses of tests/support/parity_training.hpp, with a factor of 5 to
/// spare: otherwise a GPU that does everything right would be found wrong. With and without FMA, so that rounding
/// differs.
#include <cstdio>
#include <string>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/parity_training.hpp"

std::vector<double> losses_without_fma(int training, std::size_t steps, std::uint64_t seed);
std::vector<double> losses_with_fma(int training, std::size_t steps, std::uint64_t seed);

using namespace kd_test;

namespace {

struct known_training {
  int number;  // of parity_losses.cpp
  const char* name;
  std::size_t steps;
  double tolerance;
};
const known_training trainings[] = {
    {0, "SimpleNN, distilled", simple_nn_distilled.steps, simple_nn_distilled.tolerance},
    {1, "LightNN, distilled", light_nn_distilled.steps, light_nn_distilled.tolerance},
    {2, "LightNN, augmented", light_nn_augmented.steps, light_nn_augmented.tolerance},
    {3, "ResNet18", resnet18.steps, resnet18.tolerance},
};

bool host_has_fma() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

}  // namespace

TEST_CASE("parity: two instruction sets agree on every training's losses with a factor of 5 to spare",
          "[train][parity]") {
  if (!host_has_fma()) {
    SUCCEED("this processor has no FMA: not run");
    return;
  }
  for (const known_training& t : trainings) {
    const auto want = losses_without_fma(t.number, t.steps, 0), got = losses_with_fma(t.number, t.steps, 0);
    CHECK(near(got, want, {.relative = t.tolerance / 5}, std::string(t.name) + ": loss of step"));
    CHECK(got.size() == t.steps);
    CHECK(got != want);  // the same bits would mean that one instruction set was compared with itself
  }
}

// test.train.parity_test "[figures]": what the steps were chosen by.
TEST_CASE("parity: the largest relative differences so far, by step, over three seeds", "[.][figures]") {
  for (const known_training& t : trainings) {
    const std::size_t steps = t.steps * 3 / 2;
    for (const std::uint64_t seed : {0, 100, 200}) {
      const auto want = losses_without_fma(t.number, steps, seed), got = losses_with_fma(t.number, steps, seed);
      std::printf("%-20s seed %3d:", t.name, static_cast<int>(seed));
      for (const std::size_t until : {5u, 8u, 12u, 20u, 30u}) {
        if (until > steps) continue;
        comparison so_far;
        for (std::size_t i = 0; i < until; ++i) so_far.add(got[i] / want[i], 1, 1);
        std::printf("  %zu: %.1e", until, so_far.worst_error());
      }
      std::printf("\n");
      std::fflush(stdout);
      CHECK(got.size() == steps);
    }
  }
}
