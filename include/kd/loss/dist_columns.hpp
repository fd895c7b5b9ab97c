/// DIST's relation between samples: how alike the columns of student's and teacher's probabilities are over a batch. It
/// crosses rows, which no formula of kd/formula does: a kernel of its own. kd/formula/dist.hpp is the relation between
/// classes. Huang, You, Wang, Qian, Xu: Knowledge distillation from a stronger teacher, arXiv:2205.10536, section 4.
#pragma once

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/options.hpp"
#include "kd/formula/logit_batch.hpp"
#include "kd/formula/option.hpp"
#include "kd/loss/require_arrays.hpp"

namespace kd::inline KD_ABI {

/// T^2 times the mean over the classes of 1 - the Pearson correlation, over the rows, of q = softmax(z/T) and
/// p = softmax(t/T'). A class whose q or p is the same in all rows, as with one row, has no correlation: that counts as
/// 0, the class adds 1 and no gradient.
struct dist_columns {
  float temperature = 4.0f;
  float teacher_temperature = 0.0f;  ///< 0: the student's
  float weight = 1.0f;               ///< of value and gradient; the paper's gamma
  bool times_temperature_squared = true;

  static constexpr const char* name = "dist_columns";
  static constexpr bool needs_teacher = true, needs_label = false;
  static constexpr void options(auto&& each) {
    using mine = dist_columns;
    using formula::option;
    each(option{"temperature", &mine::temperature, 1e-4f, 1e4f, "4 is the paper's"});
    each(option{"teacher_temperature", &mine::teacher_temperature, 0, 1e4f, "0 is the student's"});
    each(option{"weight", &mine::weight, 0, formula::unbounded, "0 turns the term off"});
    each(option{"times_temperature_squared", &mine::times_temperature_squared, "true is Hinton's convention"});
  }
  void validate() const { validate_options(name, *this); }
};

namespace detail {

/// Throws argument_error for arrays that do not fit, and fields that the columns of a batch do not take.
inline void require_columns(const formula::logit_batch<float>& batch) {
  constexpr const char* name = dist_columns::name;
  if (batch.classes == 0)
    reject_argument(name, "there must be at least one class", batch.classes, "pass the logits' width");
  require_arrays<dist_columns>(name, batch);
  if (batch.row_weights || batch.upstream || batch.row_values || batch.teacher_classes != 0)
    reject_argument(name, "rows of one batch have no weights, upstream gradients or values of their own",
                    "row_weights, upstream, row_values or teacher_classes", "leave them away");
}

}  // namespace detail
}  // namespace kd::inline KD_ABI
