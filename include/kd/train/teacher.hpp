/// Where a student's soft targets come from.
#pragma once

#include <cstddef>
#include <string>

#include "kd/core/tensor.hpp"
#include "kd/nn/network.hpp"

namespace kd::inline KD_ABI::train {

/// Labels alone.
struct no_teacher {};

/// Logits [N,C] that were computed once, by sample: right where every epoch shows the same images. They must outlive
/// the trainer, and stay as they are.
struct cached_teacher {
  const tensor<float, 2>* logits = nullptr;
  /// The network that gave them, as teacher_identity says, for checkpoints; empty: a digest of the logits takes its
  /// place, whose last bits another machine may compute otherwise.
  std::string made_by = {};
};

/// A network that sees every augmented batch as the student sees it, normalised as its own weights want it; it only
/// evaluates and never learns, so it cannot be the student's own. It must outlive the trainer; several trainers of one
/// thread may share it.
template <class Network>
struct live_teacher {
  Network* network = nullptr;
};

template <class Teacher>
inline constexpr bool is_live_teacher = false;
template <class Network>
inline constexpr bool is_live_teacher<live_teacher<Network>> = true;

}  // namespace kd::inline KD_ABI::train
