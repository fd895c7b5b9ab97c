#include "support/cuda_loss_engine.hpp"

TEST_CASE("losses of the GPU: terms without a teacher, and sums of terms", "[cuda][loss]") {
  using enum kd::cuda::loss_variant;
  kd_test::check_hard_terms<kd_test::cuda_loss_engine<registers>>();
  kd_test::check_hard_terms<kd_test::cuda_loss_engine<block_per_row>>();
  kd_test::check_mixtures<kd_test::cuda_loss_engine<registers>>();
  kd_test::check_mixtures<kd_test::cuda_loss_engine<block_per_row>>();
}

TEST_CASE("losses of the GPU: a teacher's log-probabilities that do not sum to 1", "[cuda][loss]") {
  using enum kd::cuda::loss_variant;
  kd_test::check_log_probabilities<kd_test::cuda_loss_engine<registers>>();
  kd_test::check_log_probabilities<kd_test::cuda_loss_engine<block_per_row>>();
}

TEST_CASE("losses of the GPU: logits that are scaled and capped", "[cuda][loss]") {
  using enum kd::cuda::loss_variant;
  kd_test::check_caps<kd_test::cuda_loss_engine<registers>>();
  kd_test::check_caps<kd_test::cuda_loss_engine<block_per_row>>();
}

TEST_CASE("losses of the GPU: gradients in bf16 of logits that spread over 30", "[cuda][loss]") {
  using engine = kd_test::cuda_loss_engine<kd::cuda::loss_variant::registers, kd_test::bfloat16>;
  for (const std::size_t classes : {10u, 100u, 1000u})
    kd_test::check_rows<engine>(kd_test::with_cross_entropy(kd::formula::jensen_shannon{.beta = 0.25f}, 2, 2),
                                kd_test::random_rows(4, classes, 3, 30, 30));
}
