/// Losses whose teacher's logits are log-probabilities take them as they are.
#pragma once

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"

namespace kd::inline KD_ABI {

/// Throws argument_error where a formula::logit_loss takes log-probabilities at another teacher's temperature than 1.
template <class Formula>
void require_teacher_temperature(const char* name, const Formula& loss) {
  if (Formula::takes_log_probabilities && loss.teacher_temperature != 1)
    reject_argument(name, "teacher_temperature must be 1 where a term takes log-probabilities",
                    loss.teacher_temperature, "0 is the student's: say 1");
}

}  // namespace kd::inline KD_ABI
