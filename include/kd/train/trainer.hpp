/// One training run: a network, its data, a loss, an optimiser and perhaps a teacher; epoch by epoch, resumable.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kd/data/dataset.hpp"
#include "kd/data/loader.hpp"
#include "kd/loss/formula_of.hpp"
#include "kd/loss/loss_meter.hpp"
#include "kd/loss/loss_terms.hpp"
#include "kd/nn/network.hpp"
#include "kd/optim/rule.hpp"
#include "kd/train/live_parameters.hpp"
#include "kd/train/options.hpp"
#include "kd/train/progress.hpp"
#include "kd/train/teacher.hpp"

namespace kd::inline KD_ABI::train {

/// Trains `Network` on one split of a data set. `Loss` is one of loss/, `Optimiser` a rule of optim/all_rules.hpp or of
/// one's own, `Teacher` one of teacher.hpp. All buffers are made here; step() allocates nothing. Network, data set and
/// teacher must outlive the trainer, which reads them in every step.
template <class Network, class Loss, class Optimiser, class Teacher = no_teacher>
class trainer {
 public:
  using network_type = Network;
  using device_type = typename Network::device_type;
  static constexpr std::size_t classes = Network::classes;
  using live = live_parameters<typename Network::model>;
  static_assert(
      requires(const Loss& loss) { loss.formula(); },
      "kd::train::trainer: the loss must say what it computes with formula(), as kd::distillation does");
  static_assert(optim::rule<Optimiser>,
                "kd::train::trainer: the optimiser must be a rule as kd/formula/rule.hpp says it");
  using factors = optim::factors_of<Optimiser>;
  static_assert(optim::fits_step_scalars<Optimiser>,
                "kd::train::trainer: the optimiser's factors must be plain numbers, at most 32 bytes of them");
  static_assert(!Loss::needs_teacher || !std::is_same_v<Teacher, no_teacher>,
                "kd::train::trainer: a distillation loss needs a teacher: pass logits or a network");
  static constexpr bool has_cache = std::is_same_v<Teacher, cached_teacher>;
  static constexpr bool has_live = !has_cache && !std::is_same_v<Teacher, no_teacher>;
  static_assert(!has_live || is_live_teacher<Teacher>,
                "kd::train::trainer: the teacher must be no_teacher, cached_teacher or live_teacher");
  static constexpr bool rows_in_place = device_type::rows_in_place && Network::plan::output.row;

  /// Throws argument_error where data, network, teacher and settings do not fit together for as many epochs as the
  /// settings say: nothing of that kind is left for the steps. Touches nothing then.
  trainer(Network& network, const data::dataset& set, const Loss& loss, const Optimiser& optimiser,
          const options& settings, Teacher teacher = {})
      : network_(checked(network, set, loss, optimiser, settings, teacher)),
        set_(&set),
        loss_(loss),
        optimiser_(optimiser),
        settings_(settings),
        teacher_(teacher),
        order_(set.train.size(), settings.batch_size, settings.seed, settings.drop_last),
        images_(network.device().resident(std::span<const std::uint8_t>(set.train.images))),
        labels_(network.device().resident(std::span<const std::int32_t>(set.train.labels))),
        teacher_table_(network.device().resident(table_of(teacher))),
        places_(network.device().plan_update(live::runs(optimiser.keeps_weights_without_gradient()))) {
    auto& device = network.device();
    const std::size_t batch = std::min(settings.batch_size, set.train.size()), rows = batch * classes;
    samples_ = device.template allocate<std::uint32_t>(set.train.size());
    table_.resize(order_.steps());
    scalars_ = device.template allocate<step_scalars>(table_.size());
    position_ = device.template allocate<std::uint32_t>(1);
    current_ = device.template allocate<step_scalars>(1);
    meter_ = device.template allocate<loss_meter>(1);
    batch_indices_ = device.template allocate<std::uint32_t>(batch);
    batch_labels_ = device.template allocate<std::int32_t>(batch);
    if constexpr (!rows_in_place) {
      student_rows_ = device.template allocate<float>(rows);
      d_rows_ = device.template allocate<float>(rows);
    }
    if constexpr (Loss::needs_teacher) teacher_rows_ = device.template allocate<float>(rows);
    loss_scratch_ = device.template allocate<std::byte>(device.loss_scratch(batch, classes));
    for (auto& one : states_) one = device.template allocate<float>(Network::parameter_floats);
    network.reserve(batch, true);
    if (settings.show) progress_.emplace(progress_options::detect(settings.show), settings.name, settings.epochs);
    if constexpr (has_live) teacher.network->reserve(batch, false);
  }
  /// A temporary data set would be gone before the first step.
  trainer(Network&, const data::dataset&&, const Loss&, const Optimiser&, const options&, Teacher = {}) = delete;

  /// Epochs that are done, in this process or before a resume.
  const std::vector<epoch_record>& history() const { return history_; }
  Network& network() const { return *network_; }
  const options& settings() const { return settings_; }
  std::size_t steps_per_epoch() const { return order_.steps(); }

  /// Trains on every sample once (with drop_last, on those in full batches), in the order that (seed, epoch) gives, and
  /// returns what happened. Throws non_finite_error, with the sample, where a step met a NaN: its update and those
  /// after it were not done.
  const epoch_record& run_epoch() {
    const data::batches all = start_epoch();
    for (std::size_t b = 0; b < all.size(); ++b) {
      enqueue_step(b);
      if (!progress_) continue;
      // What the device has not done yet it cannot show.
      const loss_terms so_far = device_type::runs_at_once ? means_of(read_meter()) : loss_terms{};
      progress_->batch(b + 1, std::min((b + 1) * settings_.batch_size, all.samples()), so_far.total);
    }
    return finish_epoch();
  }

  /// The parts of run_epoch, for runs side by side: the next epoch begins; then enqueue_step for every batch; then its
  /// record.
  data::batches start_epoch() {
    start_ = std::chrono::steady_clock::now();
    const data::batches all = begin_epoch(history_.size());
    clear_meter();
    if (progress_) progress_->begin_epoch(history_.size() + 1, all.size(), all.samples());
    return all;
  }
  const epoch_record& finish_epoch() {
    require_epoch("kd::train::trainer::finish_epoch");
    const loss_meter sum = read_meter();
    require_finite_steps(sum);
    const loss_terms terms = means_of(sum);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start_;
    const std::size_t epoch = history_.size();
    std::vector<term> list;
    for (const loss_term& one : terms.terms()) list.push_back({std::string(one.name), one.value});
    const epoch_record& record =
        history_.emplace_back(epoch_record{.epoch = epoch + 1,
                                           .loss = terms.total,
                                           .terms = std::move(list),
                                           .teacher_agreement = terms.teacher_agreement,
                                           .accuracy = terms.accuracy,
                                           .learning_rate = learning_rate(steps_per_epoch() * (epoch + 1) - 1),
                                           .seconds = seconds.count()});
    if (progress_) progress_->end_epoch(text_of(record));
    return record;
  }

  /// Fixes the order of an epoch's samples and the numbers of its steps; step() takes its batches one by one.
  data::batches begin_epoch(std::size_t epoch) {
    const data::batches all = order_.epoch(static_cast<std::uint32_t>(epoch));
    const auto formula = with_ramps(loss_, settings_.ramps, epoch).formula();
    for (std::size_t b = 0; b < all.size(); ++b) {
      const std::size_t index = epoch * all.size() + b;
      step_scalars& s = table_[b];
      s.step = static_cast<std::uint32_t>(index);
      s.epoch = static_cast<std::uint32_t>(epoch);
      s.first = static_cast<std::uint32_t>(b * settings_.batch_size);
      write_loss(formula, s);
      const factors now = optimiser_.factors(learning_rate(index), index + 1);
      std::memcpy(s.optimiser, &now, sizeof now);
    }
    auto& device = network_->device();
    device.upload(all.order().data(), all.samples(), samples_.data());
    device.upload(table_.data(), all.size(), scalars_.data());
    epoch_begins_at_ = epoch * all.size();
    next_ = all.size();  // whichever batch comes first sets the position
    epoch_has_begun_ = true;
    return all;
  }

  /// One step of the epoch that begin_epoch fixed, and its terms: gather, forward, loss, backward, update. Throws
  /// non_finite_error before a NaN reaches the weights, and argument_error before begin_epoch and for a batch that the
  /// epoch does not have.
  loss_terms step(std::size_t batch_number) {
    clear_meter();
    enqueue_step(batch_number);
    const loss_meter terms = read_meter();
    require_finite_steps(terms, batch_number);
    return means_of(terms);
  }

  /// The same without waiting for it: what it gave is in finish_epoch's record.
  void enqueue_step(std::size_t batch_number) {
    require_epoch("kd::train::trainer::enqueue_step");
    const std::size_t count = order_.current()[batch_number].size();
    const auto student_is_mine = network_->use();
    [[maybe_unused]] const auto teacher_is_mine = use_of(teacher_);
    auto& device = network_->device();
    if (batch_number != next_) {
      const auto position = static_cast<std::uint32_t>(batch_number);
      device.upload(&position, 1, position_.data());
    }
    next_ = batch_number + 1;
    const std::int64_t tracked = network_->batches_tracked;
    std::uint64_t teacher_layout = 0;
    if constexpr (has_live) teacher_layout = teacher_.network->layout();
    device.replay(recordings_, std::array<std::uint64_t, 3>{count, network_->layout(), teacher_layout},
                  [this, count] { do_step(count); });
    network_->batches_tracked = tracked + 1;  // a replay repeats what the device does, not what the host counts
    if constexpr (device_type::runs_at_once) require_finite_steps(*meter_.data(), batch_number);
  }

  double learning_rate(std::size_t step_index) const {
    const std::size_t position = settings_.schedule.counts_steps() ? step_index : step_index / steps_per_epoch();
    return settings_.schedule.rate(optimiser_.learning_rate, static_cast<double>(position));
  }

  /// The optimiser's state: `states` flat buffers in the layout of the parameters; i below that.
  static constexpr std::size_t states = Optimiser::states;
  float* state(std::size_t i) { return states_.at(i).data(); }
  const float* state(std::size_t i) const { return states_.at(i).data(); }
  /// For resuming: takes over the epochs of an earlier process.
  void restore_history(std::vector<epoch_record> history) { history_ = std::move(history); }
  const Loss& loss() const { return loss_; }
  const Optimiser& optimiser() const { return optimiser_; }
  const Teacher& teacher() const { return teacher_; }
  const data::dataset& set() const { return *set_; }

 private:
  template <class T>
  using buffer = typename device_type::template buffer<T>;
  template <class T>
  using resident = typename device_type::template resident_array<T>;

  static std::span<const float> table_of(const Teacher& teacher) {
    if constexpr (has_cache) return teacher.logits->elements();
    return {};
  }

  /// Everything that the device does in a step. May be recorded: what differs between steps is read from current_.
  void do_step(std::size_t count) {
    auto& device = network_->device();
    const step_scalars* now = current_.data();
    const step_random random{settings_.seed, 0, &now->step};
    device.begin_step(scalars_.data(), position_.data(), current_.data(), samples_.data(), labels_.data(),
                      has_cache ? teacher_table_.data() : nullptr, classes, count, batch_indices_.data(),
                      batch_labels_.data(), teacher_rows_.data());
    gather(count, network_->pixels(), network_->input(count, true));
    if constexpr (has_live) {
      gather(count, teacher_.network->pixels(), teacher_.network->input(count, false));
      device.to_rows(Network::plan::output, count, teacher_.network->forward_infer(count), teacher_rows_.data());
    }
    const float* student = network_->forward_train(count, random);
    float* d_student = network_->logits_gradient(count);
    if constexpr (!rows_in_place) {
      device.to_rows(Network::plan::output, count, student, student_rows_.data());
      student = student_rows_.data();
      d_student = d_rows_.data();
    }
    accumulate_loss(now, count, student, d_student);
    if constexpr (device_type::runs_at_once)
      if (meter_.data()->fault_kind != loss_fault_kind::none) return;  // enqueue_step says so
    if constexpr (!rows_in_place)
      device.from_rows(Network::plan::output, count, d_student, network_->logits_gradient(count));
    network_->backward(count, random);
    optim::state_buffers<Optimiser> states_of_weights;
    for (std::size_t i = 0; i < states; ++i) states_of_weights[i] = state(i);
    device.update(optimiser_, places_, reinterpret_cast<const factors*>(now->optimiser), network_->parameters(),
                  network_->gradients(), states_of_weights, meter_.data());
  }

  void accumulate_loss(const step_scalars* now, std::size_t count, const float* student, float* d_student) {
    auto& device = network_->device();
    const auto* const formula = loss_of<formula_of<Loss>>(now);
    if constexpr (requires { loss_.value_names(); })  // chosen at run time
      loss_.accumulate(device, formula, count, classes, student, teacher_rows_.data(), batch_labels_.data(), d_student,
                       loss_scratch_, meter_.data());
    else
      device.accumulate_loss(loss_, formula, count, classes, student, teacher_rows_.data(), batch_labels_.data(),
                             d_student, loss_scratch_, meter_.data());
  }

  void gather(std::size_t count, const normalisation& pixels, float* input) {
    network_->device().gather_images({images_.data(), Network::plan::input, batch_indices_.data(), count}, pixels,
                                     settings_.augment, {settings_.seed, 0, &std::as_const(current_).data()->epoch},
                                     input);
  }

  void clear_meter() {
    static constexpr loss_meter zero;
    network_->device().upload(&zero, 1, meter_.data());
  }
  loss_meter read_meter() const {
    loss_meter sum;
    network_->device().download(meter_.data(), 1, &sum);
    return sum;
  }
  loss_terms means_of(const loss_meter& sum) const {
    if constexpr (requires { loss_.value_names(); })
      return sum.means(loss_.value_names());
    else
      return sum.means(value_names<formula_of<Loss>>);
  }
  /// `first`: the batch that the meter began with.
  void require_finite_steps(const loss_meter& sum, std::size_t first = 0) const {
    if (sum.fault_kind == loss_fault_kind::none) return;
    const std::size_t step = device_type::runs_at_once ? first : first + static_cast<std::size_t>(sum.fault_step);
    const loss_fault fault = sum.fault();
    const std::span<const std::uint32_t> batch = order_.current()[step];
    if (fault.row >= batch.size())
      throw error(text("kd::train::trainer: a fault at row ", fault.row, " of a batch of ", batch.size()));
    throw non_finite_error(text(settings_.name, ": ", loss_.name, ": ", text_of(fault), " of step ",
                                epoch_begins_at_ + step + 1, ", training sample ", batch[fault.row],
                                "; training stopped before the weights were touched: look at this sample, or lower the "
                                "learning rate"));
  }
  void require_epoch(std::string_view function) const {
    if (!epoch_has_begun_)
      reject_argument(function, "an epoch must have begun", "none", "call start_epoch or begin_epoch first");
  }
  /// Keeps other threads from a live teacher; nothing where there is none.
  static auto use_of(const Teacher& teacher) {
    if constexpr (requires { teacher.network->use(); })
      return teacher.network->use();
    else
      return 0;
  }

  /// The network, once everything is known to fit.
  static Network* checked(Network& network, const data::dataset& set, const Loss& loss, const Optimiser& optimiser,
                          const options& settings, const Teacher& teacher) {
    constexpr std::string_view me = "kd::train::trainer";
    loss.validate();
    require_ramps(loss, settings.ramps);
    optim::validate(optimiser);
    if (!(set.image == Network::plan::input))
      reject_argument(me, text("images of the network's input shape ", text_of(Network::plan::input)),
                      text_of(set.image), "train a network for these images");
    if (set.classes != classes)
      reject_argument(me, text("a data set of the network's ", classes, " classes"), set.classes,
                      "use a network with as many outputs as the data has classes");
    data::require_samples(me, set.train, set.image, classes);
    require_batches(set.train.size(), settings);
    if (settings.augment.crop_padding > std::max(set.image.height, set.image.width))
      reject_argument(me, text("crop_padding must be at most the image's extents ", text_of(set.image)),
                      settings.augment.crop_padding, "beyond that crops are all black; 4 is usual for 32x32");
    if constexpr (has_cache || has_live) require_teacher(network, set.train.size(), settings, teacher);
    return &network;
  }
  static void require_teacher(const Network& network, std::size_t samples, const options& settings,
                              const Teacher& teacher) {
    constexpr std::string_view me = "kd::train::trainer";
    if constexpr (has_cache) {
      if (teacher.logits == nullptr)
        reject_argument(me, "cached_teacher needs logits", "a null pointer", "pass cached_teacher{&logits}");
      if (teacher.logits->extent(0) != samples || teacher.logits->extent(1) != classes)
        reject_argument(me, text("teacher logits [", samples, ",", classes, "], one row per training sample"),
                        text("[", teacher.logits->extent(0), ",", teacher.logits->extent(1), "]"),
                        "compute them on the same training set");
      if (settings.augment.any())
        reject_argument(me, "cached teacher logits need the same images in every epoch", "augmentation",
                        "pass the teacher network instead of its logits");
    } else {
      if (teacher.network == nullptr)
        reject_argument(me, "live_teacher needs a network", "a null pointer", "pass live_teacher<Network>{&network}");
      if (static_cast<const void*>(teacher.network) == static_cast<const void*>(&network))
        reject_argument(me,
                        "teacher and student must be two networks: a live teacher reads every batch between the "
                        "student's passes",
                        "one object as both", "make a second network, and load the weights into it");
      // Its kernels would go into another stream, and be no part of the recorded step.
      if (static_cast<const void*>(&teacher.network->device()) != static_cast<const void*>(&network.device()))
        reject_argument(me, "a live teacher must be on the student's device object", "a teacher on another one",
                        "make both networks with one device, or compute the teacher's logits before");
    }
  }
  /// What can be said of an epoch's batches before the first one.
  static void require_batches(std::size_t samples, const options& settings) {
    constexpr std::string_view me = "kd::train::trainer";
    const data::loader order(samples, settings.batch_size, settings.seed, settings.drop_last);
    settings.schedule.validate(settings.epochs, order.steps());
    const std::size_t last = order.current()[order.steps() - 1].size();
    if (last != 1) return;
    for (const nn::node& n : Network::plan::nodes)
      if (n.kind == nn::layer_kind::batch_norm2d && n.in.pixels() == 1)
        reject_argument(me,
                        text("every batch must have at least 2 images: \"", n.name.view(), "\", batch norm of ",
                             text_of(n.in), ", has one value per channel of a single image"),
                        text(samples, " images in batches of ", settings.batch_size),
                        samples == 1 || settings.batch_size == 1 ? "use a larger batch_size, on more images"
                                                                 : "set drop_last, or use another batch_size");
  }

  Network* network_;
  const data::dataset* set_;
  Loss loss_;
  Optimiser optimiser_;
  options settings_;
  Teacher teacher_;
  data::loader order_;
  resident<std::uint8_t> images_;
  resident<std::int32_t> labels_;
  resident<float> teacher_table_;
  decltype(std::declval<device_type&>().plan_update(live::runs(true))) places_;
  typename device_type::recordings recordings_;
  std::vector<step_scalars> table_;  // of the epoch's steps, on the host
  std::size_t next_ = 0, epoch_begins_at_ = 0;
  bool epoch_has_begun_ = false;
  std::chrono::steady_clock::time_point start_;
  buffer<step_scalars> scalars_, current_;
  buffer<std::uint32_t> samples_, position_, batch_indices_;
  buffer<std::int32_t> batch_labels_;
  buffer<loss_meter> meter_;
  buffer<float> student_rows_, teacher_rows_, d_rows_;
  buffer<std::byte> loss_scratch_;
  std::array<buffer<float>, states> states_;
  std::vector<epoch_record> history_;
  std::optional<progress> progress_;
};

}  // namespace kd::inline KD_ABI::train
