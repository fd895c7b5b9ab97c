/// The distillation loss on a GPU as separate operations: the baseline of tests and benchmarks. Nothing is checked;
/// labels must lie in [0,classes), logits must be finite.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kd/cuda/launch.hpp"
#include "kd/loss/distillation.hpp"
#include "unfused.cuh"

namespace kd_bench::unfused {

using kd::cuda::blocks_for;
using kd::cuda::launch;
using kd::cuda::stream;

/// out = log softmax(logits / temperature), [rows,classes].
inline void log_softmax_forward(const stream& s, std::size_t rows, std::size_t classes, const float* logits,
                                float temperature, float* out) {
  launch(s, "log_softmax_forward", blocks_for(rows, 1), unfused_threads, 0, softmax_forward<true>, classes, logits,
         temperature, out);
}

/// d_logits = (d_out - softmax * sum d_out) / temperature, where `out` is what the forward operation returned.
inline void log_softmax_backward(const stream& s, std::size_t rows, std::size_t classes, const float* out,
                                 const float* d_out, float temperature, float* d_logits) {
  launch(s, "log_softmax_backward", blocks_for(rows, 1), unfused_threads, 0, log_softmax_backward<>, classes, out,
         d_out, temperature, d_logits);
}

/// out = softmax(logits / temperature), [rows,classes].
inline void softmax_forward(const stream& s, std::size_t rows, std::size_t classes, const float* logits,
                            float temperature, float* out) {
  launch(s, "softmax_forward", blocks_for(rows, 1), unfused_threads, 0, softmax_forward<false>, classes, logits,
         temperature, out);
}

/// d_logits = p (d_p - sum p d_p) / temperature, where p is what the forward operation returned.
inline void softmax_backward(const stream& s, std::size_t rows, std::size_t classes, const float* p, const float* d_p,
                             float temperature, float* d_logits) {
  launch(s, "softmax_backward", blocks_for(rows, 1), unfused_threads, 0, softmax_backward<>, classes, p, d_p,
         temperature, d_logits);
}

/// out[0] = scale / rows times the sum over the rows of sum p (log_p - log_q).
/// @param values rows doubles of workspace
inline void kl_divergence_forward(const stream& s, std::size_t rows, std::size_t classes, const float* p,
                                  const float* log_p, const float* log_q, double scale, double* values, double* out) {
  if (rows == 0) return;
  launch(s, "kl_divergence_forward", blocks_for(rows, 1), unfused_threads, 0, kl_divergence_forward<>, classes, p,
         log_p, log_q, values);
  launch(s, "sum_of_rows", 1, unfused_threads, 0, sum_of_rows<>, rows, values, scale / static_cast<double>(rows), out);
}

/// d_log_q = -p d_loss / rows.
inline void kl_divergence_backward(const stream& s, std::size_t rows, std::size_t classes, const float* p, float d_loss,
                                   float* d_log_q) {
  launch(s, "kl_divergence_backward", blocks_for(rows * classes, unfused_threads), unfused_threads, 0,
         kl_divergence_backward<>, rows * classes, p, d_loss / static_cast<float>(rows), d_log_q);
}

/// out[0] = mean over the rows of -log_q[label].
/// @param values rows doubles of workspace
inline void cross_entropy_forward(const stream& s, std::size_t rows, std::size_t classes, const float* log_q,
                                  const std::int32_t* labels, double* values, double* out) {
  if (rows == 0) return;
  launch(s, "cross_entropy_forward", blocks_for(rows, unfused_threads), unfused_threads, 0, cross_entropy_forward<>,
         rows, classes, log_q, labels, values);
  launch(s, "sum_of_rows", 1, unfused_threads, 0, sum_of_rows<>, rows, values, 1 / static_cast<double>(rows), out);
}

/// d_log_q = -onehot(label) d_loss / rows.
inline void cross_entropy_backward(const stream& s, std::size_t rows, std::size_t classes, const std::int32_t* labels,
                                   float d_loss, float* d_log_q) {
  launch(s, "cross_entropy_backward", blocks_for(rows, 1), unfused_threads, 0, cross_entropy_backward<>, classes,
         labels, d_loss / static_cast<float>(rows), d_log_q);
}

/// Bytes of workspace, aligned to 8, that distillation_forward_backward takes.
constexpr std::size_t distillation_workspace(std::size_t rows, std::size_t classes) {
  return rows * sizeof(double) + 6 * rows * classes * sizeof(float);
}

/// The distillation loss and its gradient by composition.
/// @param options on the host, accepted by its validate()
/// @param d_student [rows,classes], overwritten; null for the value alone
/// @param terms two doubles on the device, overwritten: the means over the rows of the cross entropy and of T^2 KL
inline void distillation_forward_backward(const stream& s, std::size_t rows, std::size_t classes, const float* student,
                                          const float* teacher, const std::int32_t* labels,
                                          const kd::distillation& options, float* d_student, std::byte* workspace,
                                          double* terms) {
  const std::size_t size = rows * classes;
  auto* const values = reinterpret_cast<double*>(workspace);
  auto* const log_hard = reinterpret_cast<float*>(values + rows);
  float *const log_q = log_hard + size, *const p = log_q + size, *const log_p = p + size;
  float *const d_log = log_p + size, *const d_soft = d_log + size;
  const float T = options.temperature;
  log_softmax_forward(s, rows, classes, student, 1.0f, log_hard);
  log_softmax_forward(s, rows, classes, student, T, log_q);
  softmax_forward(s, rows, classes, teacher, T, p);
  log_softmax_forward(s, rows, classes, teacher, T, log_p);
  cross_entropy_forward(s, rows, classes, log_hard, labels, values, terms);
  kl_divergence_forward(s, rows, classes, p, log_p, log_q, double{T} * double{T}, values, terms + 1);
  if (d_student == nullptr) return;
  kl_divergence_backward(s, rows, classes, p, options.kd_weight * T * T, d_log);
  log_softmax_backward(s, rows, classes, log_q, d_log, T, d_soft);
  cross_entropy_backward(s, rows, classes, labels, options.ce_weight, d_log);
  log_softmax_backward(s, rows, classes, log_hard, d_log, 1.0f, d_student);
  launch(s, "add_gradient", blocks_for(size, unfused_threads), unfused_threads, 0, add_gradient<>, size, d_soft,
         d_student);
}

}  // namespace kd_bench::unfused
