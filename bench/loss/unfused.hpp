/// The distillation loss as separate operations, each forward and backward, in plain portable code on row-major logits:
/// what the fused loss is held against in time. Nothing is checked here; the loops are one thread's.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kd/loss/distillation.hpp"

namespace kd_bench::unfused {

/// out = log softmax(logits / temperature), [rows,classes]; the maximum is subtracted first.
inline void log_softmax_forward(std::size_t rows, std::size_t classes, const float* logits, float temperature,
                                float* out) {
  for (std::size_t row = 0; row < rows; ++row, logits += classes, out += classes) {
    const float largest = *std::max_element(logits, logits + classes);
    double sum = 0;
    for (std::size_t c = 0; c < classes; ++c) {
      out[c] = (logits[c] - largest) / temperature;
      sum += std::exp(out[c]);
    }
    const auto log_sum = static_cast<float>(std::log(sum));
    for (std::size_t c = 0; c < classes; ++c) out[c] -= log_sum;
  }
}

/// d_logits = (d_out - softmax * sum d_out) / temperature, where `out` is what the forward operation returned.
inline void log_softmax_backward(std::size_t rows, std::size_t classes, const float* out, const float* d_out,
                                 float temperature, float* d_logits) {
  for (std::size_t row = 0; row < rows; ++row, out += classes, d_out += classes, d_logits += classes) {
    double sum = 0;
    for (std::size_t c = 0; c < classes; ++c) sum += d_out[c];
    for (std::size_t c = 0; c < classes; ++c)
      d_logits[c] = (d_out[c] - std::exp(out[c]) * static_cast<float>(sum)) / temperature;
  }
}

/// out = softmax(logits / temperature), [rows,classes].
inline void softmax_forward(std::size_t rows, std::size_t classes, const float* logits, float temperature, float* out) {
  for (std::size_t row = 0; row < rows; ++row, logits += classes, out += classes) {
    const float largest = *std::max_element(logits, logits + classes);
    double sum = 0;
    for (std::size_t c = 0; c < classes; ++c) {
      out[c] = std::exp((logits[c] - largest) / temperature);
      sum += out[c];
    }
    for (std::size_t c = 0; c < classes; ++c) out[c] /= static_cast<float>(sum);
  }
}

/// d_logits = p (d_p - sum p d_p) / temperature, where p is what the forward operation returned.
inline void softmax_backward(std::size_t rows, std::size_t classes, const float* p, const float* d_p, float temperature,
                             float* d_logits) {
  for (std::size_t row = 0; row < rows; ++row, p += classes, d_p += classes, d_logits += classes) {
    double sum = 0;
    for (std::size_t c = 0; c < classes; ++c) sum += double{p[c]} * d_p[c];
    for (std::size_t c = 0; c < classes; ++c) d_logits[c] = p[c] * (d_p[c] - static_cast<float>(sum)) / temperature;
  }
}

/// Mean over the rows of sum p (log_p - log_q), from probabilities and both logarithms; classes with p = 0 add 0.
inline double kl_divergence_forward(std::size_t rows, std::size_t classes, const float* p, const float* log_p,
                                    const float* log_q) {
  double sum = 0;
  for (std::size_t i = 0; i < rows * classes; ++i)
    if (p[i] > 0) sum += double{p[i]} * (double{log_p[i]} - log_q[i]);
  return rows == 0 ? 0.0 : sum / static_cast<double>(rows);
}

/// d_log_q = -p d_loss / rows.
inline void kl_divergence_backward(std::size_t rows, std::size_t classes, const float* p, float d_loss,
                                   float* d_log_q) {
  for (std::size_t i = 0; i < rows * classes; ++i) d_log_q[i] = -p[i] * d_loss / static_cast<float>(rows);
}

/// Mean over the rows of -log_q[label].
inline double cross_entropy_forward(std::size_t rows, std::size_t classes, const float* log_q,
                                    const std::int32_t* labels) {
  double sum = 0;
  for (std::size_t row = 0; row < rows; ++row) sum -= log_q[row * classes + static_cast<std::size_t>(labels[row])];
  return rows == 0 ? 0.0 : sum / static_cast<double>(rows);
}

/// d_log_q = -onehot(label) d_loss / rows.
inline void cross_entropy_backward(std::size_t rows, std::size_t classes, const std::int32_t* labels, float d_loss,
                                   float* d_log_q) {
  std::fill_n(d_log_q, rows * classes, 0.0f);
  for (std::size_t row = 0; row < rows; ++row)
    d_log_q[row * classes + static_cast<std::size_t>(labels[row])] = -d_loss / static_cast<float>(rows);
}

/// Floats of workspace that distillation_forward_backward needs.
constexpr std::size_t distillation_workspace(std::size_t rows, std::size_t classes) { return 6 * rows * classes; }

/// The distillation loss and its gradient by composition: returns the total, overwrites d_student.
inline double distillation_forward_backward(std::size_t rows, std::size_t classes, const float* student,
                                            const float* teacher, const std::int32_t* labels,
                                            const kd::distillation& options, float* d_student, float* workspace) {
  const std::size_t size = rows * classes;
  float *log_hard = workspace, *log_q = log_hard + size, *p = log_q + size, *log_p = p + size;
  float *d_log = log_p + size, *d_soft = d_log + size;
  const float T = options.temperature;
  log_softmax_forward(rows, classes, student, 1.0f, log_hard);
  log_softmax_forward(rows, classes, student, T, log_q);
  softmax_forward(rows, classes, teacher, T, p);
  log_softmax_forward(rows, classes, teacher, T, log_p);
  const double total = options.ce_weight * cross_entropy_forward(rows, classes, log_hard, labels) +
                       options.kd_weight * double{T} * T * kl_divergence_forward(rows, classes, p, log_p, log_q);
  kl_divergence_backward(rows, classes, p, options.kd_weight * T * T, d_log);
  log_softmax_backward(rows, classes, log_q, d_log, T, d_soft);
  cross_entropy_backward(rows, classes, labels, options.ce_weight, d_log);
  log_softmax_backward(rows, classes, log_hard, d_log, 1.0f, d_student);
  for (std::size_t i = 0; i < size; ++i) d_student[i] += d_soft[i];
  return total;
}

}  // namespace kd_bench::unfused
