#include "support/cpu_loss_engine.hpp"

TEST_CASE("losses of the CPU: every divergence, part 1 of 4", "[cpu][loss]") {
  kd_test::check_divergences<kd_test::cpu_loss_engine<kd::cpu::native_width>, 0, 4>();
}
