#include "support/cuda_loss_engine.hpp"

TEST_CASE("losses of the GPU: every divergence, part 3 of 4", "[cuda][loss]") {
  using enum kd::cuda::loss_variant;
  kd_test::check_divergences<kd_test::cuda_loss_engine<registers>, 2, 4>();
  kd_test::check_divergences<kd_test::cuda_loss_engine<block_per_row>, 2, 4>();
}
