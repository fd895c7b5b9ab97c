/// How a training run goes, and what it reports.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "kd/core/error.hpp"
#include "kd/core/image_view.hpp"
#include "kd/optim/schedule.hpp"
#include "kd/train/ramp.hpp"

namespace kd::inline KD_ABI::train {

/// Settings of a run, beside the optimiser and the loss.
struct options {
  std::size_t epochs = 10;
  std::size_t batch_size = 128;  // more than the set's images are a batch of all of them
  bool drop_last = false;        // leave out the batch at the end of each epoch that is not full
  std::uint64_t seed = 0;        // of the order of samples, the augmentation and dropout
  augmentation augment = {};
  optim::schedule schedule = {};  // factor on the optimiser's learning rate
  std::vector<ramp> ramps = {};   // of the loss's options
  std::string name = "network";   // in progress and logs
  std::string checkpoint = {};    // written after every epoch, continued from by the same recipe; empty: none
  std::string log = {};           // JSON lines, one per epoch; empty: none
  std::FILE* show = nullptr;      // where progress goes, usually stderr; null: nowhere
};

/// A part of the loss, without its weight.
struct term {
  std::string name;
  double value = 0;
};

/// One epoch; losses are means over its samples.
struct epoch_record {
  std::size_t epoch = 0;         // 1 is the first
  double loss = 0;               // what is minimised
  std::vector<term> terms = {};  // as kd::loss_terms has them
  double teacher_agreement = 0;  // fraction of samples with the teacher's first choice
  double accuracy = 0;           // fraction of training samples that were right, in training mode
  double learning_rate = 0;      // of the epoch's last step
  double seconds = 0;

  /// The value of a term: record["kd"]. Throws argument_error where the loss has none of that name.
  double operator[](std::string_view name) const {
    std::string there;
    for (const term& one : terms) {
      if (one.name == name) return one.value;
      there += text(there.empty() ? "" : ", ", one.name);
    }
    reject_argument("kd::train::epoch_record", text("the name must be that of a term (", there, ")"), name,
                    "look at epoch_record::terms");
  }
};

/// "loss 0.8486 (kd 1.5353, soft_cross_entropy 2.1040, cross_entropy 0.6197), train accuracy 78.1 %"; a single term is
/// not said twice.
inline std::string text_of(const epoch_record& r) {
  const auto number = [](const char* format, double value) {
    char out[64];
    std::snprintf(out, sizeof out, format, value);
    return std::string(out);
  };
  std::string terms;
  if (r.terms.size() > 1)
    for (const term& one : r.terms)
      terms += text(terms.empty() ? " (" : ", ", one.name, " ", number("%.4f", one.value));
  return text("loss ", number("%.4f", r.loss), terms, terms.empty() ? "" : ")", ", train accuracy ",
              number("%.1f", 100 * r.accuracy), " %");
}

}  // namespace kd::inline KD_ABI::train
