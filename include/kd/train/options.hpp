/// How a training run goes, and what it reports.
#pragma once

#include <cstdint>
#include <string>

#include "kd/core/image_view.hpp"
#include "kd/optim/schedule.hpp"

namespace kd::inline KD_ABI::train {

class progress;

/// Settings of a run, beside the optimiser and the loss.
struct options {
  std::size_t epochs = 10;
  std::size_t batch_size = 128;
  std::uint64_t seed = 0;  // of the order of samples, the augmentation and dropout
  normalisation pixels = imagenet_normalisation;
  augmentation augment = {};
  optim::schedule schedule = {};  // factor on the optimiser's learning rate
  std::string name = "network";   // in progress and logs
  std::string checkpoint = {};    // written after every epoch and resumed from; empty: none
  std::string log = {};           // JSON lines, one per epoch; empty: none
  progress* show = nullptr;
};

/// One epoch; losses are means over its samples.
struct epoch_record {
  std::size_t epoch = 0;  // 1 is the first
  double loss = 0;
  double cross_entropy = 0;
  double kd = 0;                  // T^2 KL(teacher || student), unweighted
  double soft_cross_entropy = 0;  // T^2 times the cross entropy with the teacher's probabilities
  double teacher_agreement = 0;   // fraction of samples with the teacher's first choice
  double accuracy = 0;            // fraction of training samples that were right, in training mode
  double learning_rate = 0;       // of the epoch's last step
  double seconds = 0;
};

}  // namespace kd::inline KD_ABI::train
