/// What changes from one training step to the next, as numbers in the device's memory: a step that is recorded once and
/// replayed reads them there, so that schedules need no new recording.
#pragma once

#include <cstdint>

#include "kd/core/abi.hpp"

namespace kd::inline KD_ABI {

/// One training step. kernel/step.cuh has the same layout.
struct alignas(16) step_scalars {
  std::uint32_t step = 0;   // counts from 0 over the whole run; of dropout's random numbers
  std::uint32_t epoch = 0;  // counts from 0; of the augmentation's random numbers
  std::uint32_t first = 0;  // position of the batch's first sample in the epoch's order
  std::uint32_t reserved = 0;
  float loss[4] = {};       // temperature, kd_weight, ce_weight; see loss_numbers
  float optimiser[8] = {};  // see optim::pack_factors
};
static_assert(sizeof(step_scalars) == 64);

}  // namespace kd::inline KD_ABI
