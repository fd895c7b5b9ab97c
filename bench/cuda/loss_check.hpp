/// What the benchmarks of the losses say of their results.
#pragma once

#include <benchmark/benchmark.h>

#include <sstream>
#include <vector>

#include "../../tests/support/compare.hpp"
#include "../../tests/support/loss_definitions.hpp"
#include "kd/core/error.hpp"
#include "kd/kernel/number.cuh"

namespace kd_bench {

/// Compares a loss and its gradient with the float64 definition and labels the benchmark with both errors: of the loss
/// absolute, of the gradient relative to its largest. One that is too large, or NaN, makes the benchmark an error.
/// @param steepest the largest gradient that a row could have
template <class T>
void check_loss(benchmark::State& state, double got, const std::vector<T>& d_student,
                const kd_test::loss_definition& want, double temperature, double steepest) {
  std::vector<float> d;
  for (const T value : d_student) d.push_back(kd::kernel::to_float(value));
  // As in tests/support/device_loss.hpp: an exponential is within 1e-7, which T^2 multiplies; bfloat16 rounds to 2^-8.
  const kd_test::comparison loss = kd_test::close(got, want.total, 1e-6 + 3e-7 * temperature * temperature);
  const kd_test::comparison gradient = kd_test::near(
      d, want.d_student, {.absolute = 1e-6 * steepest, .of_largest = sizeof(T) == 4 ? 0 : 0x1p-8}, "gradient");
  state.SetLabel(kd::text("loss ", loss.worst_error(), ", gradient ",
                          gradient.worst_error() / kd_test::largest_magnitude(want.d_student)));
  std::ostringstream fault;
  if (!loss) fault << "wrong loss: " << loss;
  if (!gradient) fault << (loss ? "" : "; ") << "wrong " << gradient;
  if (!fault.str().empty()) state.SkipWithError(fault.str().c_str());
}

}  // namespace kd_bench
