/// One training run: a network, its data, a loss, an optimiser and perhaps a teacher; epoch by epoch, resumable.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kd/data/dataset.hpp"
#include "kd/data/loader.hpp"
#include "kd/loss/distillation.hpp"
#include "kd/nn/network.hpp"
#include "kd/train/live_parameters.hpp"
#include "kd/train/options.hpp"
#include "kd/train/progress.hpp"
#include "kd/train/teacher.hpp"

namespace kd::inline KD_ABI::train {

/// Trains `Network` on one split of a data set. `Loss` is cross_entropy or distillation, `Optimiser` one of optim/,
/// `Teacher` one of teacher.hpp. All buffers are made here; step() allocates nothing.
template <class Network, class Loss, class Optimiser, class Teacher = no_teacher>
class trainer {
 public:
  using device_type = typename Network::device_type;
  static constexpr std::size_t classes = Network::classes;
  using live = live_parameters<typename Network::model>;
  static_assert(!Loss::needs_teacher || !std::is_same_v<Teacher, no_teacher>,
                "kd::train::trainer: a distillation loss needs a teacher: pass logits or a network");
  static constexpr bool has_cache = std::is_same_v<Teacher, cached_teacher>;
  static constexpr bool has_live = !has_cache && !std::is_same_v<Teacher, no_teacher>;

  trainer(Network& network, const data::dataset& set, const Loss& loss, const Optimiser& optimiser,
          const options& settings, Teacher teacher = {})
      : network_(&network),
        loss_(loss),
        optimiser_(optimiser),
        settings_(settings),
        teacher_(teacher),
        order_(set.train.size(), settings.batch_size, settings.seed),
        images_(network.device().resident(std::span<const std::uint8_t>(set.train.images))),
        labels_(network.device().resident(std::span<const std::int32_t>(set.train.labels))),
        teacher_table_(network.device().resident(table_of(teacher))) {
    check(set);
    auto& device = network.device();
    const std::size_t batch = settings.batch_size, rows = batch * classes;
    indices_ = device.template allocate<std::uint32_t>(set.train.size());
    batch_labels_ = device.template allocate<std::int32_t>(batch);
    student_rows_ = device.template allocate<float>(rows);
    d_rows_ = device.template allocate<float>(rows);
    if constexpr (Loss::needs_teacher) teacher_rows_ = device.template allocate<float>(rows);
    loss_scratch_ = device.template allocate<std::byte>(device.loss_scratch(batch, classes));
    for (auto& moment : moments_) moment = device.template allocate<float>(Network::parameter_count);
    network.reserve(batch, true);
    if (settings.show) progress_.emplace(progress_options::detect(settings.show), settings.name, settings.epochs);
    if constexpr (has_live) teacher.network->reserve(batch, false);
  }

  /// Epochs that are done, in this process or before a resume.
  const std::vector<epoch_record>& history() const { return history_; }
  Network& network() const { return *network_; }
  const options& settings() const { return settings_; }
  std::size_t steps_per_epoch() const { return order_.steps(); }

  /// Trains on every sample once, in the order that (seed, epoch) gives, and returns what happened.
  const epoch_record& run_epoch() {
    const auto start = std::chrono::steady_clock::now();
    const std::size_t epoch = history_.size();
    const data::batches all = begin_epoch(epoch);
    if (progress_) progress_->begin_epoch(epoch + 1, all.size(), all.samples());
    loss_terms sum;
    for (std::size_t b = 0; b < all.size(); ++b) {
      sum += step(epoch, b, all);
      if (progress_) progress_->batch(b + 1, sum.rows, sum.total);
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    const epoch_record& record =
        history_.emplace_back(epoch_record{.epoch = epoch + 1,
                                           .loss = sum.total,
                                           .cross_entropy = sum.cross_entropy,
                                           .kd = sum.kd,
                                           .soft_cross_entropy = sum.soft_cross_entropy,
                                           .teacher_agreement = sum.teacher_agreement,
                                           .accuracy = sum.accuracy,
                                           .learning_rate = learning_rate(all.size() * (epoch + 1) - 1),
                                           .seconds = seconds.count()});
    if (progress_) progress_->end_epoch(text_of(record, Loss::needs_teacher));
    return record;
  }

  /// Fixes the order of an epoch's samples; step() takes its batches one by one.
  data::batches begin_epoch(std::size_t epoch) {
    const data::batches all = order_.epoch(static_cast<std::uint32_t>(epoch));
    network_->device().upload(all.order().data(), all.samples(), indices_.data());
    return all;
  }

  /// One step: gather, forward, loss, backward, update. Throws non_finite_error before a NaN reaches the weights.
  loss_terms step(std::size_t epoch, std::size_t batch_number, const data::batches& all) {
    auto& device = network_->device();
    const std::size_t count = all[batch_number].size();
    const std::uint32_t* samples = indices_.data() + batch_number * settings_.batch_size;
    const std::size_t step_index = epoch * all.size() + batch_number;
    const step_random random{settings_.seed, static_cast<std::uint32_t>(step_index)};

    gather(samples, count, epoch, network_->input(count, true));
    device.gather_labels(labels_.data(), samples, count, batch_labels_.data());
    if constexpr (has_cache) device.gather_rows(teacher_table_.data(), classes, samples, count, teacher_rows_.data());
    if constexpr (has_live) {
      gather(samples, count, epoch, teacher_.network->input(count, false));
      device.to_rows(Network::plan::output, count, teacher_.network->forward_infer(count), teacher_rows_.data());
    }

    device.to_rows(Network::plan::output, count, network_->forward_train(count, random), student_rows_.data());
    const loss_result result = device.loss(loss_, count, classes, student_rows_.data(), teacher_rows_.data(),
                                           batch_labels_.data(), d_rows_.data(), loss_scratch_);
    if (!result.finite()) require_finite(result, text(settings_.name, ": ", Loss::name), step_index + 1);
    device.from_rows(Network::plan::output, count, d_rows_.data(), network_->logits_gradient(count));
    network_->backward(count, random);
    device.update(optimiser_, learning_rate(step_index), step_index + 1,
                  live::runs(optimiser_.keeps_weights_without_gradient()), network_->parameters(),
                  network_->gradients(), moment(0), moment(1));
    return result.terms;
  }

  double learning_rate(std::size_t step_index) const {
    const std::size_t position = settings_.schedule.counts_steps() ? step_index : step_index / steps_per_epoch();
    return settings_.schedule.rate(optimiser_.learning_rate, static_cast<double>(position));
  }

  /// The optimiser's state: `states` flat arrays in the order of the parameters.
  static constexpr std::size_t states = Optimiser::states;
  float* moment(std::size_t i) { return i < moments_.size() ? moments_[i].data() : nullptr; }
  const float* moment(std::size_t i) const { return i < moments_.size() ? moments_[i].data() : nullptr; }
  /// For resuming: takes over the epochs of an earlier process.
  void restore_history(std::vector<epoch_record> history) { history_ = std::move(history); }
  const Loss& loss() const { return loss_; }
  const Optimiser& optimiser() const { return optimiser_; }

 private:
  template <class T>
  using buffer = typename device_type::template buffer<T>;
  template <class T>
  using resident = typename device_type::template resident_array<T>;

  static std::span<const float> table_of(const Teacher& teacher) {
    if constexpr (has_cache) return teacher.logits->elements();
    return {};
  }

  void gather(const std::uint32_t* samples, std::size_t count, std::size_t epoch, float* input) {
    network_->device().gather_images({images_.data(), Network::plan::input, samples, count}, settings_.pixels,
                                     settings_.augment, settings_.seed, static_cast<std::uint32_t>(epoch), input);
  }

  void check(const data::dataset& set) const {
    constexpr std::string_view me = "kd::train::trainer";
    loss_.validate();
    optimiser_.validate();
    settings_.schedule.validate();
    if (!(set.image == Network::plan::input))
      reject_argument(me, text("images of the network's input shape ", text_of(Network::plan::input)),
                      text_of(set.image), "train a network for these images");
    if (set.classes != classes)
      reject_argument(me, text("a data set of the network's ", classes, " classes"), set.classes,
                      "use a network with as many outputs as the data has classes");
    for (std::size_t i = 0; i < set.train.size(); ++i)
      if (set.train.labels[i] < 0 || static_cast<std::size_t>(set.train.labels[i]) >= classes)
        reject_argument(me, text("label ", i, " must be in [0, ", classes, ")"), set.train.labels[i], "check the data");
    if constexpr (has_cache)
      if (teacher_.logits->extent(0) != set.train.size() || teacher_.logits->extent(1) != classes)
        reject_argument(me, text("teacher logits [", set.train.size(), ",", classes, "], one row per training sample"),
                        text("[", teacher_.logits->extent(0), ",", teacher_.logits->extent(1), "]"),
                        "compute them on the same training set");
  }

  Network* network_;
  Loss loss_;
  Optimiser optimiser_;
  options settings_;
  Teacher teacher_;
  data::loader order_;
  resident<std::uint8_t> images_;
  resident<std::int32_t> labels_;
  resident<float> teacher_table_;
  buffer<std::uint32_t> indices_;
  buffer<std::int32_t> batch_labels_;
  buffer<float> student_rows_, teacher_rows_, d_rows_;
  buffer<std::byte> loss_scratch_;
  std::array<buffer<float>, Optimiser::states> moments_;
  std::vector<epoch_record> history_;
  std::optional<progress> progress_;
};

}  // namespace kd::inline KD_ABI::train
