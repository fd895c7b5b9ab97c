/// What both engines of the logit losses are given, and what they leave of a row.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kd/core/abi.hpp"
#include "kd/cpu/detail/loss_math.hpp"
#include "kd/formula/logit_batch.hpp"
#include "kd/formula/logit_loss.hpp"
#include "kd/formula/logit_row.hpp"
#include "kd/formula/loss_sums.hpp"
#include "kd/formula/soft_cap.hpp"

namespace kd::inline KD_ABI::cpu::detail {

using formula::one_class;

/// Which exponentials a row needs beside exp(t/T'): at T = 1 softmax(z) and softmax(z/T) are one, at T = 2 exp(z) is
/// the square of exp(z/2), otherwise both are computed. Where the loss has only one of the two it is `shared`.
enum class student_exponentials { shared, squared, separate };

template <class Loss>
constexpr student_exponentials exponentials_of(const Loss& loss) {
  if (!Loss::softens || !Loss::hardens) return student_exponentials::shared;
  if (Loss::standardises) return student_exponentials::separate;
  if (loss.temperature == 1.0f) return student_exponentials::shared;
  return loss.temperature == 2.0f ? student_exponentials::squared : student_exponentials::separate;
}

/// Where row `row` of an array begins, whose rows have `width` elements.
template <class T>
inline T* row_at(const formula::row_array<T>& array, std::size_t width, std::size_t group_rows, std::size_t row) {
  const std::size_t stride = array.row_stride == 0 ? width : array.row_stride;
  if (group_rows == 0) return array.data + row * stride;
  const std::size_t group = array.group_stride == 0 ? group_rows * stride : array.group_stride;
  return array.data + row / group_rows * group + row % group_rows * stride;
}

/// How gradients are put down.
enum class writing { plain, streamed, added };  // streamed: past the caches

/// The arguments of a call, checked.
template <class Loss_, class Student_, class Teacher_, class Label, class Gradient_>
struct loss_call {
  using Loss = Loss_;
  using Student = Student_;
  using Teacher = Teacher_;
  using Gradient = Gradient_;
  static constexpr bool teacher_softens = Loss::softens && Loss::needs_teacher;
  static constexpr bool reads_gap = Loss::reads_log_gap || Loss::reads_teacher_log_gap;
  static constexpr bool reads_logits = reads_gap || Loss::reads_logits;  // beside the first sweep

  const Loss& loss;
  const formula::logit_batch<Student, Teacher, Label, Gradient>& batch;
  double divisor;  // what values and gradients are divided by
  writing how;
  // Where the loss standardises each row has its own. Here, since their divisions take as long as 10 classes of a row.
  exponential_scale scale = exponential_scale(temperature());
  exponential_scale teacher_scale = exponential_scale(teacher_temperature());
  float T_ratio = static_cast<float>(teacher_scale.inverse_temperature() / scale.inverse_temperature());

  /// Without a softened term the temperatures count as 1.
  float temperature() const { return Loss::softens ? loss.temperature : 1.0f; }
  float teacher_temperature() const { return Loss::softens ? loss.teacher_temperature : 1.0f; }
  std::size_t classes() const { return batch.classes; }
  std::size_t teacher_classes() const { return batch.teacher_classes == 0 ? batch.classes : batch.teacher_classes; }
  const Student* student(std::size_t row) const { return row_at(batch.student, classes(), batch.group_rows, row); }
  const Teacher* teacher(std::size_t row) const {
    return row_at(batch.teacher, teacher_classes(), batch.group_rows, row);
  }
  bool has_labels() const { return Loss::needs_label || batch.labels.data; }
  std::size_t label(std::size_t row) const {
    return static_cast<std::size_t>(*row_at(batch.labels, 1, batch.group_rows, row));
  }
  /// A vector of logits as the loss's terms see it.
  template <class Vector>
  Vector student_logit(const Vector& z) const {
    return formula::student_logit<loss_math>(loss, z);
  }
  template <class Vector>
  Vector teacher_logit(const Vector& t) const {
    return formula::teacher_logit<loss_math>(loss, t);
  }
  template <class Vector>
  Vector student_slope(const Vector& z) const {
    return formula::student_slope<loss_math>(loss, z);
  }
  Gradient* gradient(std::size_t row) const { return row_at(batch.gradient, classes(), batch.group_rows, row); }
  /// By what the gradient of a row is multiplied.
  float gradient_weight(std::size_t row) const {
    const float weight = batch.row_weights ? batch.row_weights[row] : 1.0f;
    return batch.upstream ? weight * batch.upstream[batch.upstream_per_row ? row : 0] : weight;
  }
  /// The same for the batch and term I: its weight over the divisor, and what a softened term has beside the
  /// probabilities. Real is float where a row is a lane, double where it is long.
  template <std::size_t I, class Real>
  Real gradient_weight() const {
    const auto weight = static_cast<Real>(loss.template weight<I>());
    if constexpr (Loss::template term_at<I>::side == formula::terms::softened)
      return weight * loss.gradient_scale() / static_cast<Real>(divisor);
    else
      return weight / static_cast<Real>(divisor);
  }
};

/// The rows of a call that are not ignored.
struct counted_rows {
  const std::size_t* list;  // null: all of them
  std::size_t count;
  double weights;  // the sum of theirs
  std::size_t operator[](std::size_t i) const { return list ? list[i] : i; }
};

/// What a term's gradient has less at the label.
template <class Term>
inline float at_label(const Term& term) {
  if constexpr (requires { term.at_label(); })
    return term.at_label();
  else
    return 0;
}

/// What the label has less in the gradient, over the divisor.
template <class Call>
inline float less_at_label(const Call& a) {
  return formula::weight_at_label(a.loss) / static_cast<float>(a.divisor);
}

/// The values of a row, without its weight, and whether they are all finite: else it is at fault.
template <class Loss>
struct loss_row {
  double values[Loss::values], total;
  bool correct, agrees, finite;
};
/// At least the bytes of any loss_row.
inline constexpr std::size_t most_loss_row_bytes = (formula::most_loss_values + 2) * sizeof(double);

/// The sums of a run of rows. A batch of loss_part_rows is one, so that its totals are those of its rows in order.
template <class Loss>
struct loss_part {
  double total, values[Loss::values];
  std::size_t correct, agrees;
  std::size_t at_fault = std::numeric_limits<std::size_t>::max();  // the first row without a finite value

  void add(const loss_part& more) {
    total += more.total;
    for (std::size_t k = 0; k < Loss::values; ++k) values[k] += more.values[k];
    correct += more.correct;
    agrees += more.agrees;
  }
};
inline constexpr std::size_t loss_part_rows = 128;
inline constexpr std::size_t most_loss_part_bytes = (formula::most_loss_values + 4) * sizeof(double);
constexpr std::size_t loss_parts_of(std::size_t rows) { return (rows + loss_part_rows - 1) / loss_part_rows; }

/// The values of the terms that are not hard, and what those watch, without T^2.
template <class Loss, class Rows, class Real>
inline void soft_values(const Loss& loss, const Rows& r, Real (&values)[Loss::values]) {
  Loss::each([&](auto index) {
    constexpr std::size_t i = decltype(index)::value, first = Loss::template first_value<i>;
    using term = typename Loss::template term_at<i>;
    if constexpr (term::side != formula::terms::hard) {
      values[first] = r.template at<i>().value;
      if constexpr (formula::detail::watched_of<term>() > 0)
        loss.template term<i>().watch(r.template at<i>(), &values[first + 1]);
    }
  });
}

/// The same of the hard terms; `logit_sum`(i) is the row's logit sum i.
template <class Loss, class LogitSum>
inline void hard_values(const Loss& loss, double log_sum, double max, double label_logit, double classes,
                        const LogitSum& logit_sum, double (&values)[Loss::values]) {
  Loss::each([&](auto index) {
    constexpr std::size_t i = decltype(index)::value, first = Loss::template first_value<i>;
    using term = typename Loss::template term_at<i>;
    if constexpr (term::side == formula::terms::hard) {
      constexpr std::size_t sums = formula::detail::logit_sums_of<term>();
      formula::hard_row<sums> r = {log_sum, max, label_logit, classes, {}};
      for (std::size_t k = 0; k != sums; ++k) r.logit_sums.at[k] = logit_sum(Loss::template first_logit_sum<i> + k);
      values[first] = loss.template term<i>().value(r);
      if constexpr (formula::detail::watched_of<term>() > 0) loss.template term<i>().watch(r, &values[first + 1]);
    }
  });
}

/// Multiplies the softened values by T^2, adds up the total, and finds out whether all are finite. A hard term of
/// weight 0 may be infinite where the label is masked: it adds 0 to the total and to the gradient.
template <class Loss>
inline void finish_values(const Loss& loss, loss_row<Loss>& row) {
  double total = 0, nothing = 0;  // the sum of 0 * value: NaN where one is not finite
  Loss::each([&](auto index) {
    constexpr std::size_t i = decltype(index)::value, first = Loss::template first_value<i>;
    using term = typename Loss::template term_at<i>;
    const double weight = loss.template weight<i>();
    for (std::size_t k = first; k <= first + formula::detail::watched_of<term>(); ++k) {
      double& value = row.values[k];
      if constexpr (term::side == formula::terms::softened) value *= loss.value_scale();
      if (term::side == formula::terms::hard && formula::detail::needs_label_of<term>() && weight == 0 &&
          value == std::numeric_limits<double>::infinity())
        continue;
      nothing += 0 * value;
    }
    if (weight != 0) total += weight * row.values[first];
  });
  row.total = total;
  row.finite = nothing == 0;
}

}  // namespace kd::inline KD_ABI::cpu::detail
