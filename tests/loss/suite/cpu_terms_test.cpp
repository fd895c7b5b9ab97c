#include "support/cpu_loss_engine.hpp"

TEST_CASE("losses of the CPU: terms without a teacher, and sums of terms", "[cpu][loss]") {
  using engine = kd_test::cpu_loss_engine<kd::cpu::native_width>;
  kd_test::check_hard_terms<engine>();
  kd_test::check_mixtures<engine>();
}

TEST_CASE("losses of the CPU: a teacher's log-probabilities that do not sum to 1", "[cpu][loss]") {
  kd_test::check_log_probabilities<kd_test::cpu_loss_engine<kd::cpu::native_width>>();
}

TEST_CASE("losses of the CPU: logits that are scaled and capped", "[cpu][loss]") {
  kd_test::check_caps<kd_test::cpu_loss_engine<kd::cpu::native_width>>();
}
