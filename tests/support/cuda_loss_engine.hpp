/// The CUDA device's losses as engines of logit_loss_suite.hpp.
#pragma once

#include <cstddef>

#include "support/device_loss.hpp"
#include "support/logit_loss_suite.hpp"

namespace kd_test {

/// Rows in registers, or a block for each; logits and gradient are Logits.
template <loss_variant Variant, class Logit = float>
struct cuda_loss_engine {
  static constexpr bool by_block = Variant == loss_variant::block_per_row;
  static constexpr const char* name = by_block ? "cuda, by block" : "cuda, registers";
  static constexpr double slack = 1, gradient_rounding = sizeof(Logit) == 4 ? 0 : rounding<Logit>;
  // The 512 threads of a block are slow to emulate, and know nothing of other rows.
  static constexpr std::size_t most_classes_of_batches = by_block ? 2 : 16, most_rows = by_block ? 1 : 8;
  static bool takes(std::size_t classes) { return by_block || classes <= 1024; }
  static float rounded(float x) { return to_floats(rounded_to<Logit>({x}))[0]; }

  template <class Loss>
  static engine_outcome run(const Loss& loss, const logit_rows& b) {
    const kd::cuda::stream s;
    const loss_batch batch{b.rows, b.classes, b.student, b.teacher, b.labels};
    loss_arrays<Logit, Loss> arrays(s, batch, loss, {});
    kd::cuda::logit_loss_forward_backward(s, arrays.batch(), static_cast<const Loss*>(arrays.loss.data()),
                                          arrays.scratch.data(), arrays.sums.data(), Variant);
    const loss_outcome got = arrays.outcome();
    const kd::loss_terms means = got.sums.means(got.names);
    engine_outcome out{{}, means.total, got.sums.fault(), got.d_student};
    for (const kd::loss_term& term : means.terms()) out.values.push_back(term.value);
    return out;
  }
};

}  // namespace kd_test
