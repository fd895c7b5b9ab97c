/// The CPU's losses as an engine of logit_loss_suite.hpp.
#pragma once

#include <cstddef>
#include <vector>

#include "kd/cpu/logit_loss.hpp"
#include "support/logit_loss_suite.hpp"

namespace kd_test {

/// Rows of few classes go lane by lane, others one by one, in vectors of `Width`.
template <std::size_t Width>
struct cpu_loss_engine {
  static constexpr const char* name = Width == 1 ? "cpu, portable" : "cpu, vectors";
  /// The portable twin adds up to 1,024 floats one by one.
  static constexpr double slack = Width == 1 ? 4 : 1, gradient_rounding = 0;
  static constexpr std::size_t most_classes_of_batches = 100, most_rows = 40;
  static bool takes(std::size_t) { return true; }
  static float rounded(float x) { return x; }

  /// From a gradient full of sevens and scratch full of NaN.
  template <class Loss>
  static engine_outcome run(const Loss& loss, const logit_rows& b) {
    const kd::cpu::parallel par{1};
    std::vector<std::byte> scratch(kd::cpu::logit_loss_scratch(par, b.rows, b.classes), std::byte{0xFF});
    engine_outcome out;
    out.d_student.assign(b.rows * b.classes, 7.0f);
    const kd::formula::logit_batch<float> batch = {.rows = b.rows,
                                                   .classes = b.classes,
                                                   .student = {b.student.data()},
                                                   .teacher = {b.teacher.data()},
                                                   .labels = {b.labels.data()},
                                                   .gradient = {out.d_student.data()}};
    const kd::loss_result result = kd::cpu::detail::fused_loss<Width>("suite", par, batch, loss, scratch);
    out.fault = result.fault;
    out.total = result.terms.total;
    for (const kd::loss_term& term : result.terms.terms()) out.values.push_back(term.value);
    return out;
  }
};

}  // namespace kd_test
