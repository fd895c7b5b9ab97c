#include "cuda/parity.hpp"

using namespace kd_test;

TEST_CASE("cuda LightNN: distilled steps agree with the CPU's and repeat to the bit", "[cuda][parity]") {
  check_parity<kd::models::LightNN>(true);
}

TEST_CASE("cuda LightNN: augmented steps agree with the CPU's", "[cuda][parity]") {
  check_parity<kd::models::LightNN>(false, {.crop_padding = 4, .flip = true});
}

TEST_CASE("cuda LightNN: tf32 and bf16 stay near fp32", "[cuda][parity][precision]") {
  const kd::data::dataset set = parity_images();
  kd::cpu::device cpu(2);
  const parity_run want = train_some_steps<kd::models::LightNN>(cpu, set, true);
  for (const kd::precision p : {kd::precision::tf32, kd::precision::bf16}) {
    kd::cuda::device device({.precision = p});
    // Images in bfloat16 carry 8 bits: 2^-8 relative per layer, and a few layers.
    CHECK(losses_agree(want, train_some_steps<kd::models::LightNN>(device, set, true), 3e-2));
  }
}
