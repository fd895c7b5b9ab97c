/// The fused cross entropy of the CUDA device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kd/cuda/fused_loss.hpp"
#include "kd/kernel/cross_entropy.cuh"
#include "kd/loss/cross_entropy.hpp"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

namespace detail {

template <class Logit>
struct KD_HIDDEN cross_entropy_launches {
  const stream& s;
  std::size_t rows, classes;
  const Logit* student;
  const std::int32_t* labels;
  Logit* d_student;
  kernel::loss_row* terms;
  kernel::loss_sums* sums;

  template <unsigned Lanes, unsigned Values, bool Fold>
  void in_registers(unsigned grid, unsigned block) const {
    launch(s, "cross_entropy_in_registers", grid, block, 0,
           kernel::cross_entropy_in_registers<Lanes, Values, Fold, Logit>, rows, classes,
           rows_allow_four<Logit>(classes, student, d_student), student, labels, d_student, terms, sums);
  }
  void by_block(unsigned grid) const {
    launch(s, "cross_entropy_by_block", grid, kernel::block_row_threads, 0, kernel::cross_entropy_by_block<Logit>, rows,
           classes, student, labels, d_student, terms);
  }
  void fold() const {
    launch(s, "fold_loss_rows", 1, kernel::fold_loss_threads, 0, kernel::fold_loss_rows<false, Logit>, rows, classes,
           student, nullptr, labels, nullptr, terms, sums);
  }
};

}  // namespace detail

/// Adds -log softmax(z)_y of a batch to `sums`, and writes the gradient of its mean over the rows; everything else as
/// distillation_forward_backward.
template <class Logit>
KD_HIDDEN void cross_entropy_forward_backward(const stream& s, std::size_t rows, std::size_t classes,
                                              const Logit* student, const std::int32_t* labels, Logit* d_student,
                                              std::byte* scratch, kernel::loss_sums* sums,
                                              loss_variant variant = loss_variant::automatic) {
  if (rows == 0) return;
  constexpr const char* name = "kd::cuda::cross_entropy_forward_backward";
  detail::require_pointer(name, "student", student);
  detail::require_pointer(name, "labels", labels);
  detail::require_pointer(name, "sums", sums);
  detail::launch_loss(name,
                      detail::cross_entropy_launches<Logit>{s, rows, classes, student, labels, d_student,
                                                            detail::loss_rows_in(name, scratch), sums},
                      rows, classes, variant);
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
