/// What the probes of this folder answer: plain C, so that it may cross libraries and instruction sets.
#pragma once

#include "../support/compare.hpp"

struct kd_probe_result {
  const char* instruction_set;
  unsigned words[4];  ///< Philox words of a fixed counter
  double first_loss;  ///< of a tiny student, distilled for two epochs
  double last_loss;
  bool caught;  ///< an argument_error thrown and caught inside
};

using kd_probe_function = kd_probe_result (*)(int threads);

/// Why a result is wrong, or nullptr; `like` comes from other threads, flags or another library. The losses agree to
/// 1e-4: instruction sets round differently (fused multiply-add), and eight steps let that grow from 1e-7.
inline const char* kd_probe_fault(const kd_probe_result& result, const kd_probe_result& like) {
  if (!(result.last_loss < result.first_loss)) return "the loss did not fall";
  if (!kd_test::near(result.first_loss, like.first_loss, {.relative = 1e-4})) return "the first losses differ";
  if (!kd_test::near(result.last_loss, like.last_loss, {.relative = 1e-4})) return "the last losses differ";
  if (!result.caught) return "an argument error was not caught where it was thrown";
  for (int i = 0; i < 4; ++i)
    if (result.words[i] != like.words[i]) return "the random words differ";
  return nullptr;
}
