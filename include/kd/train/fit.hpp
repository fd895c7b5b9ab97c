/// Whole runs in one call: training from labels, distillation from a teacher, evaluation.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "kd/io/file.hpp"
#include "kd/io/file_lock.hpp"
#include "kd/io/metrics_log.hpp"
#include "kd/loss/cross_entropy.hpp"
#include "kd/loss/distillation.hpp"
#include "kd/train/evaluate.hpp"
#include "kd/train/resume.hpp"
#include "kd/train/trainer.hpp"

namespace kd::inline KD_ABI::train {

namespace detail {

/// The files of one run: resumes from settings().checkpoint where that file exists, saves to it and logs after every
/// epoch. Both are locked until the end: a second run with the same files is refused. The recipe is worked out once,
/// and only where there is a checkpoint.
template <class Trainer>
class run_files {
 public:
  explicit run_files(Trainer& trainer) : trainer_(trainer), settings_(trainer.settings()) {
    if (!settings_.checkpoint.empty()) {
      lock_ = io::file_lock::of(settings_.checkpoint);
      recipe_ = recipe_of(trainer);
      if (io::file_exists(settings_.checkpoint)) load_state(trainer, settings_.checkpoint, recipe_);
    }
    if (settings_.log.empty()) return;
    std::vector<io::json> done;
    for (const epoch_record& record : trainer.history()) done.push_back(to_json(record));
    log_ = io::metrics_log::resume(settings_.log, done);
  }
  bool done() const { return trainer_.history().size() >= settings_.epochs; }
  void keep(const epoch_record& record) {
    if (!settings_.checkpoint.empty()) save_state(trainer_, settings_.checkpoint, recipe_);
    if (log_) log_->write(to_json(record));
  }

 private:
  Trainer& trainer_;
  const options& settings_;
  io::json recipe_;
  std::optional<io::file_lock> lock_;
  std::optional<io::metrics_log> log_;
};

}  // namespace detail

/// Runs all epochs of a trainer that are still to do: resumes from settings().checkpoint where that file exists, saves
/// to it and logs after every epoch. Returns the record of all epochs. Throws file_error where another run, of this or
/// another process, has the checkpoint or the log in use.
template <class Trainer>
std::vector<epoch_record> run(Trainer& trainer) {
  detail::run_files files(trainer);
  while (!files.done()) files.keep(trainer.run_epoch());
  return trainer.history();
}

/// The same for several trainers side by side, batch by batch in turn. On a GPU, where each trainer's network has a
/// device object of its own and with it a stream, small networks fill the GPU together; results are those of `run`.
template <class... Trainers>
void run_together(Trainers&... trainers) {
  std::tuple<detail::run_files<Trainers>...> files(trainers...);
  const auto each = [&](const auto& visit) { std::apply([&](auto&... file) { (visit(trainers, file), ...); }, files); };
  const auto any_left = [&] { return std::apply([](const auto&... file) { return (... || !file.done()); }, files); };
  while (any_left()) {
    std::size_t most_steps = 0;
    each([&](auto& trainer, auto& file) {
      if (!file.done()) most_steps = std::max(most_steps, trainer.start_epoch().size());
    });
    for (std::size_t b = 0; b < most_steps; ++b)
      each([&](auto& trainer, auto& file) {
        if (!file.done() && b < trainer.steps_per_epoch()) trainer.enqueue_step(b);
      });
    each([&](auto& trainer, auto& file) {
      if (!file.done()) file.keep(trainer.finish_epoch());
    });
  }
}

/// Trains a network from labels alone.
template <class Network, class Optimiser>
std::vector<epoch_record> fit(Network& network, const data::dataset& set, const Optimiser& optimiser,
                              const options& settings = {}) {
  trainer<Network, cross_entropy, Optimiser> one(network, set, {}, optimiser, settings);
  return run(one);
}

/// Distils from logits [N,C] that a teacher gave for the training images in file order. Augmented images are not those
/// images, so augmentation needs a live teacher: argument_error. `loss` is a kd::distillation_with, {...} a
/// kd::distillation.
template <class Network, class Loss = distillation, class Optimiser>
std::vector<epoch_record> distil(Network& student, const cached_teacher& teacher, const data::dataset& set,
                                 const Loss& loss, const Optimiser& optimiser, const options& settings = {}) {
  trainer<Network, Loss, Optimiser, cached_teacher> one(student, set, loss, optimiser, settings, teacher);
  return run(one);
}
template <class Network, class Loss = distillation, class Optimiser>
std::vector<epoch_record> distil(Network& student, const tensor<float, 2>& teacher_logits, const data::dataset& set,
                                 const Loss& loss, const Optimiser& optimiser, const options& settings = {}) {
  return distil(student, cached_teacher{&teacher_logits}, set, loss, optimiser, settings);
}

/// Distils from a teacher network: from its cached logits, computed once, or, with augmentation, from its forward pass
/// on every batch. Without augmentation the student may be its own teacher: it learns from what it said at the start.
/// With augmentation that is refused (argument_error).
template <class Network, class Teacher, class Loss = distillation, class Optimiser>
requires requires { typename Teacher::plan; }
std::vector<epoch_record> distil(Network& student, Teacher& teacher, const data::dataset& set, const Loss& loss,
                                 const Optimiser& optimiser, const options& settings = {}) {
  static_assert(Teacher::classes == Network::classes,
                "kd::train::distil: the teacher's classes must equal the student's");
  if (!settings.augment.any()) {
    const tensor<float, 2> logits = predict(teacher, set.train.images);
    const std::string made_by = settings.checkpoint.empty() ? "" : network_identity(teacher);
    return distil(student, cached_teacher{&logits, made_by}, set, loss, optimiser, settings);
  }
  trainer<Network, Loss, Optimiser, live_teacher<Teacher>> one(student, set, loss, optimiser, settings,
                                                               live_teacher<Teacher>{&teacher});
  return run(one);
}

/// What a network gets right on one split. Throws argument_error where images and labels do not fit the network or each
/// other.
template <class Network>
evaluation evaluate(Network& network, const data::split& split, std::size_t batch_size = 128) {
  data::require_samples("kd::train::evaluate", split, Network::plan::input, Network::classes);
  return evaluate_logits(predict(network, split.images, batch_size), split.labels);
}

}  // namespace kd::inline KD_ABI::train
