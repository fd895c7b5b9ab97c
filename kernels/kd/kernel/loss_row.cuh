/// The arithmetic of one row of a logit loss, shared by the kernels that hold a row in registers and those that give a
/// block to it: exponentials, what is known when all classes have been summed, the values and the gradient of a class.
/// The formulas are in kd/formula; what all engines do alike with their sums, on the host as well, in logit_row.hpp.
///
/// Minus infinity is a masked class. Equal rows take the same steps on both sides, so that the divergences and their
/// gradients are exactly 0. Within about 2e-7 relative in each sum. Checked in tests/cuda/logit_loss_test.cpp.
#pragma once

#include "kd/formula/logit_row.hpp"
#include "kd/formula/soft_cap.hpp"
#include "kd/kernel/loss_batch.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// What formulas call.
struct float_math {
  __host__ __device__ static float log(float x) { return logf(x); }
  __host__ __device__ static float log1p(float x) { return log1pf(x); }
  __host__ __device__ static float exp(float x) { return expf(x); }
  __host__ __device__ static float abs(float x) { return fabsf(x); }
  __host__ __device__ static float sqrt(float x) { return sqrtf(x); }
  __host__ __device__ static float tanh(float x) { return tanhf(x); }
};

/// Logits as the terms of a loss see them.
template <class Loss>
__device__ float student_seen(const Loss& loss, float z) {
  return formula::student_logit<float_math>(loss, z);
}
template <class Loss>
__device__ float teacher_seen(const Loss& loss, float t) {
  return formula::teacher_logit<float_math>(loss, t);
}
template <class Loss, class Batch>
__device__ row_label label_seen(const Loss& loss, const row_of_batch<Batch>& at) {
  row_label label = at.template label<Loss>();
  label.student = student_seen(loss, label.student);
  if constexpr (Loss::label_apart) label.teacher = teacher_seen(loss, label.teacher);
  return label;
}

/// 2^x within 2^-22 relative; exactly 1 at 0, 0 where it would leave the normal floats, NaN of NaN.
__device__ inline float flushed_exp2(float x) {
#ifdef __CUDA_ARCH__
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
#else
  const float power = exp2f(x);
  return power < 0x1p-126f ? 0.0f : power;
#endif
}

/// exp(x / T) as 2^(x log2(e) / T), for x <= 0.
struct softening {
  float log2e_over_t;

  __device__ explicit softening(float temperature) : log2e_over_t(log2_of_e / temperature) {}

  /// 1/T as the exponentials see it, after rounding.
  __device__ float inverse_temperature() const { return log2e_over_t * 0.693147181f; }
  __device__ float operator()(float x) const { return flushed_exp2(x * log2e_over_t); }
};

/// exp(x) for x <= 0.
__device__ inline float hard_exponential(float x) { return flushed_exp2(x * log2_of_e); }

/// What standardising losses are told of a row; nothing for others.
struct row_spread {
  formula::logit_spread<float> student = {}, teacher = {};
};
/// From the sum of squares around the mean.
__device__ inline float deviation_of(float squares, float count) {
  return squares > 0 ? sqrtf(squares / (count - 1)) : squares;
}

/// The exponentials of both sides. Without a softened term the temperature counts as 1.
struct softenings {
  float student_T, teacher_T;
  softening student, teacher;
  float ratio;  // T/T'

  template <class Loss>
  __device__ softenings(const Loss& loss, const row_spread& spread)
      : student_T(!Loss::softens ? 1.0f : scaled<Loss>(loss.temperature, spread.student)),
        teacher_T(!Loss::softens ? 1.0f : scaled<Loss>(loss.teacher_temperature, spread.teacher)),
        student(student_T),
        teacher(teacher_T),
        ratio(student_T / teacher_T) {}

  /// Exactly dt - dz where the temperatures are equal.
  __device__ float gap(float dz, float dt) const { return dt * ratio - dz; }

 private:
  template <class Loss>
  __device__ static float scaled(float temperature, const formula::logit_spread<float>& spread) {
    return Loss::standardises ? temperature * (spread.deviation + formula::least_deviation) : temperature;
  }
};

/// The largest logits, floored at the lowest float so that no infinity is subtracted from itself, and the first classes
/// that have them. Where the label is set apart they are those of the other classes, until whole_row looks at it.
struct row_maxima {
  float student = lowest_float, teacher = lowest_float;
  unsigned student_class = no_class, teacher_class = no_class;
};

/// The terms of one row without their weights and without T^2; as it begins, those of an ignored one.
template <class Loss>
struct loss_row {
  double values[Loss::values] = {};
  bool finite = true;   // else the row is at fault
  bool counts = false;  // is not ignored
  bool correct = false, agrees = false;
};

/// The values times T^2 where that belongs to them, and their weighted sum, which is returned. A weight of 0 leaves out
/// what may be infinite.
template <class Loss>
__device__ double scale_values(const Loss& loss, const double (&values)[Loss::values], double* scaled) {
  const double square = loss.times_temperature_squared ? double{loss.temperature} * double{loss.temperature} : 1;
  double total = 0;
  Loss::each([&](auto index) {
    constexpr std::size_t i = decltype(index)::value, first = Loss::template first_value<i>;
    using term = typename Loss::template term_at<i>;
    const double scale = term::side == formula::terms::softened ? square : 1;
    for (std::size_t k = first; k <= first + formula::detail::watched_of<term>(); ++k) scaled[k] = scale * values[k];
    const double weight{loss.template weight<i>()};
    if (weight != 0) total += weight * scaled[first];
  });
  return total;
}
/// The same of one row into memory, [Loss::values + 1]; zeros where the row does not count.
template <class Loss>
__device__ void store_values(const Loss& loss, const loss_row<Loss>& row, double* to) {
  double scaled[Loss::values];
  const double total = scale_values(loss, row.values, scaled);
#pragma unroll
  for (std::size_t k = 0; k < Loss::values; ++k) to[k] = row.counts ? scaled[k] : 0;
  to[Loss::values] = row.counts ? total : 0;
}

/// The weights of the terms, what the batch divides by, and the power of T in it: what is the same in every row.
template <class Loss>
struct loss_weights {
  float of[Loss::size];
  float at_label;

  __device__ loss_weights(const Loss& loss, float divisor) {
    Loss::each([&](auto index) {
      constexpr std::size_t i = decltype(index)::value;
      float weight = loss.template weight<i>();
      if constexpr (Loss::template term_at<i>::side == formula::terms::softened)
        weight = weight * loss.gradient_scale();
      of[i] = weight / divisor;
    });
    at_label = formula::weight_at_label(loss) / divisor;
  }
};

/// The exponentials and logits of a class, relative to the row's maxima: exp(dz/T), exp(dt/T'), exp(dz), dt T/T' - dz.
struct class_numbers {
  float student_e = 0, teacher_e = 0, hard_e = 0, gap = 0, student_logit = 0, teacher_logit = 0;
};

/// A row when its classes have been summed.
template <class Loss>
struct whole_row {
  formula::rows<Loss, float, float_math> terms;
  float student_sum, ratio;  // of exp(dz/T); by how much it is more than the teacher's, exactly 1 for equal rows
  float hard_sum, hard_max;  // the sum of exp(z - hard_max)
  // Where the label is set apart: what makes exp(dz) relative to hard_max, and the label's own.
  float hard_scale = 1, label_hard = 0;
  unsigned student_class, teacher_class;  // with the largest logits
  unsigned classes;

  __device__ whole_row(const Loss& loss, const softenings& soft, const row_maxima& maxima,
                       const formula::sums<Loss, float>& sums, const row_label& label, const row_spread& spread,
                       unsigned classes_)
      : student_sum(sums.student),
        ratio(sums.student / sums.teacher),
        hard_sum(sums.hard),
        hard_max(maxima.student),
        student_class(maxima.student_class),
        teacher_class(maxima.teacher_class),
        classes(classes_) {
    float label_student = 0, label_teacher = 0;
    if constexpr (Loss::label_apart) {
      // Rounded here: were one of them made part of what follows, equal rows would differ.
      label_student = __fmul_rn(label.student - maxima.student, soft.student.inverse_temperature());
      label_teacher = __fmul_rn(label.teacher - maxima.teacher, soft.teacher.inverse_temperature());
      hard_max = fmaxf(maxima.student, label.student);
      hard_scale = hard_exponential(maxima.student - hard_max);
      label_hard = hard_exponential(label.student - hard_max);
      hard_sum = hard_sum * hard_scale + label_hard;
      if (takes_over(label.student, maxima.student, label.at, student_class)) student_class = label.at;
      if (takes_over(label.teacher, maxima.teacher, label.at, teacher_class)) teacher_class = label.at;
    }
    // A row without a largest class is masked or tied at the lowest float: class 0.
    if (student_class == no_class) student_class = 0;
    if (teacher_class == no_class) teacher_class = 0;
    terms = formula::rows_of<float_math>(loss, sums, soft.student.inverse_temperature(),
                                         soft.teacher.inverse_temperature(), maxima.teacher, logf(hard_sum) + hard_max,
                                         static_cast<float>(classes), label_student, label_teacher, spread.student);
    // Where there is no class but the label apart, nothing is a share of something.
    if (Loss::label_apart && sums.student == 0) student_sum = float_infinity;
    if (Loss::label_apart && sums.teacher == 0) ratio = 0;
  }

  /// A class as formulas see it.
  __device__ formula::one_class<float> see(const class_numbers& numbers) const {
    formula::one_class<float> c;
    c.student = numbers.student_e;
    c.teacher = numbers.teacher_e * ratio;
    c.difference = c.student - c.teacher;
    c.unit = 1 / student_sum;
    c.hard = Loss::label_apart ? numbers.hard_e * hard_scale : numbers.hard_e;
    c.hard_unit = 1 / hard_sum;
    const auto& any = terms.template at<0>();
    const float log_gap = any.log_ratio - numbers.gap * any.inverse_T;
    c.log_gap = numbers.student_e == 0 ? 0.0f : log_gap;
    c.teacher_log_gap = numbers.teacher_e == 0 ? 0.0f : log_gap;
    c.student_logit = numbers.student_logit;
    c.teacher_logit = numbers.teacher_logit;
    return c;
  }

  /// The terms, when the second sweep is done. A hard term of weight 0 may be infinite where the label is masked.
  __device__ loss_row<Loss> values(const Loss& loss, const row_label& label) const {
    loss_row<Loss> row;
    double zero = 0;  // NaN where a value is not finite
    Loss::each([&](auto index) {
      constexpr std::size_t i = decltype(index)::value;
      using term = typename Loss::template term_at<i>;
      constexpr std::size_t watched = formula::detail::watched_of<term>();
      double* const to = row.values + Loss::template first_value<i>;
      const auto& mine = terms.template at<i>();
      bool may_be_infinite = false;
      if constexpr (term::side == formula::terms::hard) {
        formula::hard_row<formula::detail::logit_sums_of<term>()> hard;
        hard.log_sum = double{logf(hard_sum)};
        hard.max = double{hard_max};
        hard.label_logit = double{label.student};
        hard.classes = double{mine.classes};
        for (std::size_t k = 0; k != formula::detail::logit_sums_of<term>(); ++k)
          hard.logit_sums.at[k] = double{mine.logit_sums.at[k]};
        to[0] = loss.template term<i>().value(hard);
        if constexpr (watched > 0) loss.template term<i>().watch(hard, to + 1);
        may_be_infinite = formula::detail::needs_label_of<term>() && loss.template weight<i>() == 0;
      } else {
        to[0] = double{mine.value};
        if constexpr (watched > 0) {
          float further[watched];
          loss.template term<i>().watch(mine, further);
          for (std::size_t k = 0; k < watched; ++k) to[1 + k] = double{further[k]};
        }
      }
      for (std::size_t k = 0; k <= watched; ++k)
        if (!may_be_infinite || to[k] != double{float_infinity}) zero += to[k] - to[k];
    });
    row.finite = zero == 0;
    // A label out of range has a logit of NaN, which losses that look at it have met.
    if constexpr (!Loss::needs_label) row.finite = row.finite && !label.out_of_range;
    row.counts = true;
    // What is set apart is in no sum.
    if constexpr (Loss::label_apart)
      row.finite = row.finite && label.student < float_infinity && label.teacher < float_infinity;
    row.correct = student_class == label.at;
    row.agrees = Loss::needs_teacher && student_class == teacher_class;
    return row;
  }

 private:
  __device__ static bool takes_over(float logit, float largest, unsigned at, unsigned other) {
    return logit > largest || (logit == largest && at < other);
  }
};

/// How a class makes its gradient.
template <class Loss>
struct row_gradient {
  const Loss& loss;
  const whole_row<Loss>& row;
  float factors[Loss::size];
  float less_at_label;  // or, where the label is set apart, what it has
  row_label label;

  /// @param scale the row's weight and what comes from behind the loss
  __device__ row_gradient(const Loss& loss_, const whole_row<Loss>& row_, const loss_weights<Loss>& weights,
                          float scale, const row_label& label_)
      : loss(loss_), row(row_), less_at_label(weights.at_label * scale), label(label_) {
    float of_row[Loss::size];
    Loss::each([&](auto index) {
      constexpr std::size_t i = decltype(index)::value;
      constexpr formula::terms side = Loss::template term_at<i>::side;
      of_row[i] = weights.of[i] * scale;
      factors[i] = side == formula::terms::hard       ? of_row[i] / row.hard_sum
                   : side == formula::terms::softened ? of_row[i] / row.student_sum
                                                      : of_row[i];
    });
    if constexpr (Loss::label_apart) {
      auto c = row.see({.student_logit = label.student, .teacher_logit = label.teacher});
      c.hard = row.label_hard;
      less_at_label = formula::gradient_of_label(loss, row.terms, c, factors, of_row) - less_at_label;
    }
  }

  __device__ float operator()(unsigned class_index, const class_numbers& numbers) const {
    const float d = beside_label(numbers);
    return class_index == label.at ? at_label(d) : d;
  }
  /// The gradient of a class that is not the label, and what it becomes if it is.
  __device__ float beside_label(const class_numbers& numbers) const {
    return formula::gradient_of(loss, row.terms, row.see(numbers), factors);
  }
  __device__ float at_label(float d) const { return Loss::label_apart ? less_at_label : d - less_at_label; }
};

/// What a loss asks of an engine.
template <class Loss>
inline constexpr bool takes_hard_exponentials = (Loss::softens && Loss::hardens);
template <class Loss>
inline constexpr bool takes_teacher_exponentials = (Loss::softens && Loss::needs_teacher);
template <class Loss>
inline constexpr bool takes_gap = Loss::reads_log_gap || Loss::reads_teacher_log_gap;
/// Floats that a thread holds for each class.
template <class Loss>
inline constexpr unsigned floats_of_class =
    1 + Loss::needs_teacher + takes_hard_exponentials<Loss> + takes_gap<Loss> + 2 * Loss::reads_logits + Loss::caps;

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
