/// How a training run goes, and what it reports.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "kd/core/image_view.hpp"
#include "kd/optim/schedule.hpp"

namespace kd::inline KD_ABI::train {

/// Settings of a run, beside the optimiser and the loss.
struct options {
  std::size_t epochs = 10;
  std::size_t batch_size = 128;  // more than the set's images are a batch of all of them
  bool drop_last = false;        // leave out the batch at the end of each epoch that is not full
  std::uint64_t seed = 0;        // of the order of samples, the augmentation and dropout
  augmentation augment = {};
  optim::schedule schedule = {};  // factor on the optimiser's learning rate
  std::string name = "network";   // in progress and logs
  std::string checkpoint = {};    // written after every epoch, continued from by the same recipe; empty: none
  std::string log = {};           // JSON lines, one per epoch; empty: none
  std::FILE* show = nullptr;      // where progress goes, usually stderr; null: nowhere
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

/// "loss 0.8486 (ce 0.6197, kd 1.5353), train accuracy 78.1 %".
inline std::string text_of(const epoch_record& r, bool with_teacher) {
  char line[160];
  if (with_teacher)
    std::snprintf(line, sizeof line, "loss %.4f (ce %.4f, kd %.4f), train accuracy %.1f %%", r.loss, r.cross_entropy,
                  r.kd, 100 * r.accuracy);
  else
    std::snprintf(line, sizeof line, "loss %.4f, train accuracy %.1f %%", r.loss, 100 * r.accuracy);
  return line;
}

}  // namespace kd::inline KD_ABI::train
