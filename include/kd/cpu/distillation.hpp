/// The fused losses of the CPU device: raw row-major logits in, terms and the student's gradient out.
///
/// Limits: rows * classes in 64 bits; a row is never split, so that fewer rows than threads leave threads idle.
/// Checked against float64 and against loss/unfused.hpp in tests/cpu/distillation_test.cpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/labels.hpp"
#include "kd/core/sizes.hpp"
#include "kd/cpu/detail/loss_block.hpp"
#include "kd/cpu/detail/loss_row.hpp"
#include "kd/cpu/exponential.hpp"
#include "kd/cpu/parallel.hpp"
#include "kd/loss/cross_entropy.hpp"
#include "kd/loss/distillation.hpp"
#include "kd/loss/loss_terms.hpp"

namespace kd::inline KD_ABI::cpu {

/// Bytes of scratch that either loss needs for up to `rows` rows; any alignment will do. Throws argument_error where
/// the logits themselves would not fit an address.
constexpr std::size_t distillation_scratch(const parallel& par, std::size_t rows, std::size_t classes) {
  // With 64 bytes a logit, more than its share of the sum below, which therefore cannot wrap.
  (void)product_of("kd::cpu::distillation_scratch", {rows, classes, 64}, "pass fewer rows");
  static_assert(sizeof(detail::loss_row) <= 64);
  const std::size_t threads = std::min<std::size_t>(static_cast<std::size_t>(std::max(par.threads, 1)), rows);
  const std::size_t row_floats = 3 * detail::loss_row_floats(classes) + 16;
  const std::size_t thread_bytes = row_floats * sizeof(float) + detail::loss_tiles(classes) * sizeof(detail::loss_tile);
  return 64 + rows * sizeof(detail::loss_row) + threads * ((thread_bytes + 63) / 64 * 64);
}

/// ce_weight * CE + kd_weight * T^2 KL(softmax(t/T) || softmax(z/T)), mean over the rows, and its gradient.
///
/// student, teacher: [rows,classes]; labels: [rows]; d_student: [rows,classes], overwritten with d(mean
/// loss)/d(student), null for the value alone, or `student` itself to write in place (any other overlap with the logits
/// is refused). `scratch` has distillation_scratch(par, rows, classes) bytes. Rows 0 give terms of 0. Results do not
/// depend on the threads. Where a row has no finite loss, the result names the first one and terms and gradient are
/// void (rows at fault are not written); pass it through require_finite. Throws argument_error for bad options, labels,
/// sizes, scratch, overlaps or null pointers.
loss_result distillation_forward_backward(const parallel& par, std::size_t rows, std::size_t classes,
                                          const float* student, const float* teacher, const std::int32_t* labels,
                                          const distillation& options, float* d_student, std::span<std::byte> scratch);

/// Cross entropy, mean over the rows, and its gradient; everything else as distillation_forward_backward.
loss_result cross_entropy_forward_backward(const parallel& par, std::size_t rows, std::size_t classes,
                                           const float* student, const std::int32_t* labels, float* d_student,
                                           std::span<std::byte> scratch);

namespace detail {

/// Below this many logits a second thread costs more than it saves (measured on 2 cores: 128 x 10 and 128 x 100).
inline constexpr std::size_t loss_parallel_logits = 16384;
/// From this many bytes of gradient on, stores go past the caches, which could not hold it for the next reader.
inline constexpr std::size_t loss_streaming_bytes = std::size_t{8} << 20;

/// Finds out why a row has no finite loss.
inline loss_fault diagnose(const loss_arguments& a, std::size_t row) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const float* z = a.student + row * a.classes;
  const float* t = a.teacher ? a.teacher + row * a.classes : nullptr;
  using enum loss_fault_kind;
  const auto scan = [&](const float* x, loss_fault_kind nan, loss_fault_kind infinite, loss_fault_kind masked) {
    bool all_masked = true;
    for (std::size_t c = 0; c < a.classes; ++c) {
      if (x[c] != x[c]) return loss_fault{nan, row, c};
      if (x[c] == infinity) return loss_fault{infinite, row, c};
      all_masked = all_masked && x[c] == -infinity;
    }
    return loss_fault{all_masked ? masked : none, row, 0};
  };
  if (const auto fault = scan(z, student_nan, student_infinite, student_all_masked); fault.kind != none) return fault;
  if (t)
    if (const auto fault = scan(t, teacher_nan, teacher_infinite, teacher_all_masked); fault.kind != none) return fault;
  const auto label = static_cast<std::size_t>(a.labels[row]);
  if (z[label] == -infinity) return {label_masked, row, label};
  if (t) {
    // Of the classes masked in the student alone the one that the teacher holds likeliest.
    std::size_t worst = a.classes;
    for (std::size_t c = 0; c < a.classes; ++c)
      if (z[c] == -infinity && t[c] != -infinity && (worst == a.classes || t[c] > t[worst])) worst = c;
    if (worst != a.classes) return {class_masked_in_student_only, row, worst};
  }
  return {overflow, row, 0};
}

template <std::size_t Width, student_exponentials Kind, bool Teacher>
inline void loss_of_rows(const parallel& par, const loss_arguments& a, loss_row* terms, float* thread_scratch) {
  const parallel team = a.rows * a.classes < loss_parallel_logits ? parallel{1} : par;
  if (a.classes <= loss_block_classes) {
    team.for_each((a.rows + Width - 1) / Width, [&](std::size_t block) {
      const std::size_t first = block * Width;
      loss_of_block<Width, Kind, Teacher>(a, first, std::min(Width, a.rows - first), terms + first);
    });
    return;
  }
  const std::size_t row_floats = loss_row_floats(a.classes);
  const std::size_t tile_floats = loss_tiles(a.classes) * (sizeof(loss_tile) / sizeof(float));
  const std::size_t thread_floats = (3 * row_floats + 16 + tile_floats + 15) / 16 * 16;
  team.split(a.rows, [&](std::size_t begin, std::size_t end, std::size_t thread) {
    float* mine = thread_scratch + thread * thread_floats;
    const loss_row_scratch scratch = {mine, mine + row_floats, mine + 2 * row_floats,
                                      reinterpret_cast<loss_tile*>(mine + 3 * row_floats + 16)};
    for (std::size_t row = begin; row < end; ++row) loss_of_row<Width, Kind, Teacher>(a, row, scratch, terms[row]);
    if (a.stream) finish_streaming();
  });
}

/// Whether two arrays of `bytes` bytes share one.
inline bool overlap(const float* a, const float* b, std::size_t bytes) {
  const auto x = reinterpret_cast<std::uintptr_t>(a), y = reinterpret_cast<std::uintptr_t>(b);
  return x < y ? y - x < bytes : x - y < bytes;
}

/// Both losses, for any vector width (the native one; 1 is the portable twin).
template <std::size_t Width>
inline loss_result fused_loss(const char* name, const parallel& par, loss_arguments a, std::span<std::byte> scratch) {
  if (a.rows == 0) return {};
  if (a.classes == 0) reject_argument(name, "there must be at least one class", a.classes, "pass the logits' width");
  if (!a.student || !a.labels)
    reject_argument(name, "student logits and labels must not be null", "a null pointer",
                    "pass [rows,classes] and [rows]");
  const std::size_t bytes = product_of(name, {a.rows, a.classes, sizeof(float)}, "pass fewer rows");
  if (const std::size_t need = distillation_scratch(par, a.rows, a.classes); scratch.size() < need)
    reject_argument(name, text("scratch must have ", need, " bytes"), scratch.size(), "ask distillation_scratch");
  if (a.d_student && ((a.d_student != a.student && overlap(a.d_student, a.student, bytes)) ||
                      (a.teacher && overlap(a.d_student, a.teacher, bytes))))
    reject_argument(name, "the gradient must not share memory with the logits", "arrays that overlap",
                    "pass an array of its own, or the student's logits themselves");
  require_labels(name, {a.labels, a.rows}, a.classes);
  a.stream = a.d_student && a.d_student != a.student && a.rows * a.classes * sizeof(float) >= loss_streaming_bytes;

  const std::size_t past = reinterpret_cast<std::uintptr_t>(scratch.data()) % 64;
  std::byte* aligned = scratch.data() + (past == 0 ? 0 : 64 - past);
  auto* thread_scratch = reinterpret_cast<float*>(aligned);
  const std::size_t per_thread = distillation_scratch(par, a.rows, a.classes) - 64 - a.rows * sizeof(loss_row);
  auto* terms = reinterpret_cast<loss_row*>(aligned + per_thread);

  using enum student_exponentials;
  if (!a.teacher)
    loss_of_rows<Width, shared, false>(par, a, terms, thread_scratch);
  else if (a.temperature == 1.0f)
    loss_of_rows<Width, shared, true>(par, a, terms, thread_scratch);
  else if (a.temperature == 2.0f)
    loss_of_rows<Width, squared, true>(par, a, terms, thread_scratch);
  else
    loss_of_rows<Width, separate, true>(par, a, terms, thread_scratch);

  // One thread, in the order of the rows: the sums do not depend on the number of threads.
  loss_row sum = {};
  for (std::size_t row = 0; row < a.rows; ++row) {
    if (!terms[row].finite()) return {{}, diagnose(a, row)};
    sum.cross_entropy += terms[row].cross_entropy;
    sum.kd += terms[row].kd;
    sum.soft_cross_entropy += terms[row].soft_cross_entropy;
    sum.correct += terms[row].correct;
    sum.agrees += terms[row].agrees;
  }
  const double n = static_cast<double>(a.rows), square = double{a.temperature} * a.temperature;
  loss_terms means{.total = 0,
                   .cross_entropy = sum.cross_entropy / n,
                   .kd = square * sum.kd / n,
                   .soft_cross_entropy = square * sum.soft_cross_entropy / n,
                   .accuracy = sum.correct / n,
                   .teacher_agreement = sum.agrees / n,
                   .rows = a.rows};
  means.total = a.ce_weight * means.cross_entropy + a.kd_weight * means.kd;
  return {means, {}};
}

}  // namespace detail

inline loss_result distillation_forward_backward(const parallel& par, std::size_t rows, std::size_t classes,
                                                 const float* student, const float* teacher, const std::int32_t* labels,
                                                 const distillation& options, float* d_student,
                                                 std::span<std::byte> scratch) {
  options.validate();
  if (!teacher && rows > 0)
    reject_argument("distillation", "teacher logits must not be null", "a null pointer", "pass [rows,classes]");
  return detail::fused_loss<native_width>("distillation", par,
                                          {rows, classes, student, teacher, labels, options.temperature,
                                           options.kd_weight, options.ce_weight, d_student, false},
                                          scratch);
}

inline loss_result cross_entropy_forward_backward(const parallel& par, std::size_t rows, std::size_t classes,
                                                  const float* student, const std::int32_t* labels, float* d_student,
                                                  std::span<std::byte> scratch) {
  return detail::fused_loss<native_width>(
      "cross_entropy", par, {rows, classes, student, nullptr, labels, 1.0f, 0.0f, 1.0f, d_student, false}, scratch);
}

}  // namespace kd::inline KD_ABI::cpu
