/// What changes from one training step to the next, as numbers in the device's memory: a step that is recorded once and
/// replayed reads them there, so that schedules need no new recording.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kd/core/abi.hpp"

namespace kd::inline KD_ABI {

/// One training step. kernel/step.cuh has the same layout.
struct alignas(16) step_scalars {
  std::uint32_t step = 0;   // counts from 0 over the whole run; of dropout's random numbers
  std::uint32_t epoch = 0;  // counts from 0; of the augmentation's random numbers
  std::uint32_t first = 0;  // position of the batch's first sample in the epoch's order
  std::uint32_t reserved = 0;
  alignas(16) std::byte loss[64] = {};  // a formula::logit_loss; see write_loss and loss_of
  unsigned char optimiser[32] = {};     // the factors of the optimiser's rule, byte for byte; see kd/formula/rule.hpp
};
static_assert(sizeof(step_scalars) == 112);

/// Makes `formula` the loss of a step.
template <class Formula>
void write_loss(const Formula& formula, step_scalars& step) {
  static_assert(std::is_trivially_copyable_v<Formula>, "kd::step_scalars: a loss must be trivially copyable");
  static_assert(sizeof(Formula) <= sizeof step.loss,
                "kd::step_scalars: a loss has at most 64 bytes, of which a term has its options and its weight");
  static_assert(alignof(Formula) <= alignof(step_scalars), "kd::step_scalars: a loss is aligned to at most 16 bytes");
  std::memcpy(step.loss, &formula, sizeof formula);
}

/// Where the loss of a step lies, of the type that write_loss was given. The step may be in a device's memory: it is
/// not read here.
template <class Formula>
const Formula* loss_of(const step_scalars* step) {
  return reinterpret_cast<const Formula*>(step->loss);
}

}  // namespace kd::inline KD_ABI
