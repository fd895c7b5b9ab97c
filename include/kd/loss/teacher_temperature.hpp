/// Losses whose teacher's logits are log-probabilities take them as they are.
#pragma once

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/formula/logit_loss.hpp"

namespace kd::inline KD_ABI {

/// Throws argument_error where one of the terms takes log-probabilities, and the teacher's temperature is not 1.
/// @param teacher_temperature 0: the student's
template <class... Terms>
void require_teacher_temperature(const char* name, float temperature, float teacher_temperature) {
  const float T = teacher_temperature == 0 ? temperature : teacher_temperature;
  if ((formula::detail::takes_log_probabilities_of<Terms>() || ...) && T != 1)
    reject_argument(name, "teacher_temperature must be 1 where a term takes log-probabilities", T,
                    "0 is the student's: say 1");
}

}  // namespace kd::inline KD_ABI
