/// What losses of a top-k teacher ask of their arguments on every device: see top_k_loss.hpp.
#pragma once

#include <type_traits>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/formula/dist.hpp"
#include "kd/formula/logit_loss.hpp"
#include "kd/formula/top_k_rows.hpp"
#include "kd/loss/require_arrays.hpp"

namespace kd::inline KD_ABI::detail {

template <class Formula>
struct merges_classes : std::false_type {};
template <class... Terms>
struct merges_classes<formula::logit_loss<Terms...>>
    : std::bool_constant<((Terms::side == formula::terms::softened && !formula::detail::label_apart_of<Terms>() &&
                           !formula::detail::standardises_of<Terms>() && !std::is_same_v<Terms, formula::dist>)&&...)> {
};
/// For require_arrays: the student's logits and the gradient.
struct student_alone {
  static constexpr bool needs_teacher = false, needs_label = false;
};

/// Throws argument_error for what a loss of top_k_rows cannot be.
template <class Formula, class Batch, class Rows>
void require_merged(const char* name, const Batch& batch, const Rows& teacher) {
  static_assert(merges_classes<Formula>::value,
                "kd: with top_k_rows a loss is made of divergences of distributions alone, without hard terms, "
                "logit_mse, dkd, dist or standardised_kd. Call it for cross entropy apart, with add_to_gradient");
  if (teacher.rest == formula::top_k_rest::spread)
    reject_argument(name, "the rest must be masked or one_bucket", "spread", "make dense rows with expand_top_k");
  if (batch.teacher.data != nullptr)
    reject_argument(name, "batch.teacher must be null beside top_k_rows", "two teachers", "leave it out");
  if (teacher.rows != batch.rows || teacher.classes != batch.classes)
    reject_argument(name, text("top_k_rows must have ", batch.rows, " rows of ", batch.classes, " classes"),
                    text(teacher.rows, " of ", teacher.classes), "keep the teacher's classes of the student's rows");
  require_arrays<student_alone>(name, batch);
  require_top_k_arrays(name, teacher);
  const memory_range gradient = range_of(name, "gradient", batch.gradient, batch.classes, batch.rows, batch.group_rows);
  if (gradient.overlaps(range_of(name, "indices", teacher.indices, teacher.k, teacher.rows, 0)) ||
      gradient.overlaps(range_of(name, "values", teacher.values, teacher.k, teacher.rows, 0)))
    reject_argument(name, "the gradient must not share memory with top_k_rows", "arrays that overlap",
                    "pass an array of its own");
}

}  // namespace kd::inline KD_ABI::detail
