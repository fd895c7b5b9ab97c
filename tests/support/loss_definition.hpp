/// The losses by their definition in float64, independent of the code under test.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace kd_test {

struct loss_definition {
  double cross_entropy = 0, kd = 0, soft_cross_entropy = 0, total = 0;  // means over the rows
  std::vector<double> d_student;                                        // [rows,classes]
};

/// log softmax(x / T) of one row; minus infinity for masked classes.
inline std::vector<double> log_softmax_definition(const float* x, std::size_t classes, double T) {
  double largest = -INFINITY, sum = 0;
  for (std::size_t c = 0; c < classes; ++c) largest = std::max(largest, double{x[c]});
  std::vector<double> out(classes);
  for (std::size_t c = 0; c < classes; ++c) sum += std::exp((x[c] - largest) / T);
  for (std::size_t c = 0; c < classes; ++c) out[c] = (x[c] - largest) / T - std::log(sum);
  return out;
}

/// ce_weight CE + kd_weight T^2 sum p (log p - log q), and d total / d student. Hinton 2015, arXiv:1503.02531.
/// A class that the teacher gives less than 1e-45, the smallest float, counts as probability 0.
inline loss_definition define_distillation(std::size_t rows, std::size_t classes, const float* student,
                                           const float* teacher, const std::int32_t* labels, double T, double kd_weight,
                                           double ce_weight) {
  loss_definition out;
  out.d_student.resize(rows * classes);
  const double n = static_cast<double>(rows);
  for (std::size_t row = 0; row < rows; ++row) {
    const auto hard = log_softmax_definition(student + row * classes, classes, 1);
    const auto lq = log_softmax_definition(student + row * classes, classes, T);
    const auto lp = log_softmax_definition(teacher + row * classes, classes, T);
    const auto label = static_cast<std::size_t>(labels[row]);
    out.cross_entropy -= hard[label] / n;
    for (std::size_t c = 0; c < classes; ++c) {
      const double p = std::exp(lp[c]), q = std::exp(lq[c]);
      if (p >= 1e-45) {
        out.kd += T * T * p * (lp[c] - lq[c]) / n;
        out.soft_cross_entropy -= T * T * p * lq[c] / n;
      }
      out.d_student[row * classes + c] =
          (ce_weight * (std::exp(hard[c]) - (c == label ? 1.0 : 0.0)) + kd_weight * T * (q - p)) / n;
    }
  }
  out.total = ce_weight * out.cross_entropy + kd_weight * out.kd;
  return out;
}

}  // namespace kd_test
