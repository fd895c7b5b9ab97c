#include "kd/core/step_scalars.hpp"

#include <cstdint>
#include <type_traits>

#include "kd/formula/reverse_kl.hpp"
#include "kd/loss/cross_entropy.hpp"
#include "kd/loss/distillation.hpp"
#include "kd/loss/formula_of.hpp"
#include "support/catch.hpp"

TEST_CASE("step_scalars: the loss of a step is read as it was written, and nothing beside it changes", "[core][step]") {
  const kd::distillation_with<kd::formula::reverse_kl> loss{.temperature = 3, .kd_weight = 0.5f, .ce_weight = 0.25f};
  using formula = kd::formula_of<std::remove_const_t<decltype(loss)>>;
  kd::step_scalars all[2];
  all[0].first = 7;
  all[0].optimiser[0] = 8;
  kd::write_loss(kd::cross_entropy{}.formula(), all[0]);
  kd::write_loss(loss.formula(), all[0]);
  const auto* read = kd::loss_of<formula>(&all[0]);
  CHECK(read->temperature == 3);
  CHECK(read->teacher_temperature == 3);
  CHECK(read->times_temperature_squared);
  CHECK(read->weight<0>() == 0.5f);
  CHECK(read->weight<1>() == 0.25f);
  CHECK(reinterpret_cast<std::uintptr_t>(kd::loss_of<formula>(&all[1])) % 16 == 0);
  CHECK(all[0].first == 7);
  CHECK(all[0].optimiser[0] == 8);
}
