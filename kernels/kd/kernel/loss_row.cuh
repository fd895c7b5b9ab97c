/// The arithmetic of one row of the fused losses, shared by the kernels that hold a row in registers and those that
/// give a block to it.
///
///   kd = sum p ((t - t_max) - (z - z_max)) / T - log(sum_t / sum_z),  p = exp((t - t_max) / T) / sum_t
///   ce = log(sum exp(z - z_max)) + (z_max - z_label)
///   soft = kd + H(p),  H(p) = log(sum_t) - sum p (t - t_max) / T
///   gradient by z: ce_weight (softmax(z) - onehot) + kd_weight T (softmax(z/T) - p), each divided by the rows
/// kd is without T^2 here. Hinton, Vinyals, Dean: arXiv:1503.02531, section 2; the one-pass form of the KL has no
/// logarithm of a probability, so 0 log 0 cannot occur, and both sides of each difference are near 0 where p is large.
///
/// Minus infinity is a masked class. Equal rows take the same steps on both sides, so that kd and its gradient are
/// exactly 0. Within about 2e-7 relative in each sum. Checked in tests/cuda/distillation_test.cpp.
#pragma once

#include "kd/kernel/block.cuh"
#include "kd/kernel/number.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

inline constexpr float lowest_float = -3.402823466e38f;
inline constexpr float float_infinity = __builtin_huge_valf();
inline constexpr float log2_of_e = 1.44269504f;
/// Stands for a class where there is none.
inline constexpr unsigned no_class = 0xffffffffu;

/// Where the options of a loss lie in the row that the kernels read.
namespace loss_option {
enum : unsigned { temperature, kd_weight, ce_weight };
}

/// exp(x / T) as 2^(x log2(e) / T), for x <= 0.
struct softening {
  float log2e_over_t;
  float underflow;  // below this x the exponential leaves the normal floats and counts as 0

  __device__ explicit softening(float temperature)
      : log2e_over_t(log2_of_e / temperature), underflow(-126.0f / log2e_over_t * (1 - 0x1p-20f)) {}

  /// 1/T as the exponentials see it, after rounding.
  __device__ float inverse_temperature() const { return log2e_over_t * 0.693147181f; }
  /// Exactly 1 at 0, exactly 0 below `underflow`; NaN stays NaN.
  __device__ float operator()(float x) const { return x < underflow ? 0.0f : exp2f(x * log2e_over_t); }
};

/// exp(x) for x <= 0.
__device__ inline float hard_exponential(float x) { return exp2f(x * log2_of_e); }

/// The largest logits, floored at the lowest float so that no infinity is subtracted from itself, and the first classes
/// that have them.
struct row_maxima {
  float student = lowest_float, teacher = lowest_float;
  unsigned student_class = no_class, teacher_class = no_class;
};

/// Sums over classes, relative to the maxima.
struct row_sums {
  float student = 0;  // exp((z - z_max) / T)
  float hard = 0;     // exp(z - z_max)
  float teacher = 0;  // exp((t - t_max) / T)
  float gap = 0;      // the same times ((t - t_max) - (z - z_max))
  float energy = 0;   // the same times (t - t_max)
};

/// The terms of one row, without T^2; not finite where the row is at fault.
struct loss_row {
  double cross_entropy;
  float kd, soft_cross_entropy;
  std::uint32_t correct, agrees;
};

__device__ inline bool is_finite(const loss_row& row) {
  const double all = row.cross_entropy + row.kd + row.soft_cross_entropy;
  return row.cross_entropy - row.cross_entropy == 0 && all - all == 0;
}

/// @param label_logit the student's logit of the label; NaN where the label is out of range
template <bool Teacher>
__device__ loss_row terms_of_row(const row_maxima& maxima, const row_sums& sums, const softening& soft,
                                 std::int32_t label, float label_logit) {
  // A row without a largest class is masked or tied at the lowest float: class 0.
  const unsigned student_class = maxima.student_class == no_class ? 0 : maxima.student_class;
  loss_row row = {};
  row.cross_entropy = double{logf(sums.hard)} + (double{maxima.student} - double{label_logit});
  row.correct = student_class == static_cast<unsigned>(label);
  if constexpr (Teacher) {
    const unsigned teacher_class = maxima.teacher_class == no_class ? 0 : maxima.teacher_class;
    const float inverse = soft.inverse_temperature();
    row.kd = sums.gap / sums.teacher * inverse - logf(sums.teacher / sums.student);
    row.soft_cross_entropy = row.kd + (logf(sums.teacher) - sums.energy / sums.teacher * inverse);
    row.agrees = student_class == teacher_class;
  }
  return row;
}

/// What is the same in every row of a batch.
struct loss_weights {
  float temperature, hard, soft;  // ce_weight / rows, kd_weight T / rows

  /// @param options temperature, kd_weight, ce_weight, on the device; not read without a teacher
  template <bool Teacher>
  __device__ static loss_weights of(const float* options, std::size_t rows) {
    const auto n = static_cast<float>(rows);
    if constexpr (Teacher) {
      const float temperature = options[loss_option::temperature];
      return {temperature, options[loss_option::ce_weight] / n, options[loss_option::kd_weight] * temperature / n};
    }
    return {1.0f, 1.0f / n, 0.0f};
  }
};

/// How the exponentials of a class make its gradient.
struct gradient_factors {
  float hard, soft, ratio, label;

  __device__ gradient_factors(const loss_weights& weights, const row_sums& sums)
      : hard(weights.hard / sums.hard),
        soft(weights.soft / sums.student),
        ratio(sums.student / sums.teacher),  // exactly 1 for equal rows
        label(weights.hard) {}

  template <bool Teacher>
  __device__ float operator()(float student_e, float hard_e, float teacher_e, bool is_label) const {
    float d = hard_e * hard;
    if constexpr (Teacher) d += (student_e - teacher_e * ratio) * soft;
    return is_label ? d - label : d;
  }
};

/// The student's logit of the label, NaN where the label lies outside the classes.
template <class Logit>
__device__ float logit_of_label(const Logit* student, unsigned classes, std::int32_t label) {
  return static_cast<unsigned>(label) < classes ? to_float(student[label]) : bits_to_float(0x7fc00000u);
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
