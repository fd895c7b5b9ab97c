#include "cuda/parity.hpp"

using namespace kd_test;

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
