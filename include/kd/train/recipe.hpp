/// What decides the weights of a run, as JSON: a state file is only continued with the recipe that it was started with.
#pragma once

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kd/core/image_view.hpp"
#include "kd/core/precision.hpp"
#include "kd/core/type_list.hpp"
#include "kd/io/json.hpp"
#include "kd/loss/each_option.hpp"
#include "kd/nn/plan.hpp"
#include "kd/optim/rule.hpp"
#include "kd/train/digest.hpp"
#include "kd/train/options.hpp"
#include "kd/train/ramp.hpp"

namespace kd::inline KD_ABI::train {

namespace detail {

/// A loss with its options, those apart that were added later and stand at their defaults, and with the ramps of them.
template <class Loss>
void describe_loss(io::json& out, const Loss& loss, const std::vector<ramp>& ramps) {
  out["loss"] = loss.name;
  const Loss defaults = [&] {
    if constexpr (requires { loss.defaults(); })
      return loss.defaults();
    else
      return Loss{};
  }();
  each_option(loss, [&](const std::string& name, const auto& value, const auto& option) {
    bool is_default = false;
    each_option(defaults, [&](const std::string& other, const auto& usual, const auto&) {
      if (other == name) is_default = static_cast<double>(usual) == static_cast<double>(value);
    });
    if (!(option.newer && is_default)) out[name] = value;
  });
  std::string all;
  for (const ramp& one : ramps) all += text(all.empty() ? "" : ", ", text_of(one));
  if (!all.empty()) out["ramps"] = all;
}
/// The name and the declared options of an optimiser.
template <optim::rule Rule>
void describe(io::json& out, const Rule& rule) {
  out["optimiser"] = Rule::name;
  Rule::options([&](const auto& option) { out[option.name] = rule.*option.member; });
}
/// What the overloads here do not know, a type derived from one of those included: it would be taken for another.
template <class Setting>
void describe(io::json&, const Setting&) {
  static_assert(no_branch_for<Setting>,
                "kd::train::recipe: cannot describe this optimiser: a run with it could be continued as another");
}
inline void describe(io::json& out, const optim::schedule& s) {
  io::json numbers = io::json::array();
  for (const double x : {s.size, s.gamma, s.period, s.lowest, s.steps, s.rise, s.divisor, s.final_divisor})
    numbers.push_back(x);
  out["schedule"] = static_cast<int>(s.shape);
  out["schedule_numbers"] = std::move(numbers);
}

/// "features.0 conv2d(kernel 3, stride 1, padding 1) 448 -> [16,32,32]": what is learnt there, and what comes out.
template <class Plan, std::size_t... I>
io::json layers_of(std::index_sequence<I...>) {
  io::json lines = io::json::array();
  lines.push_back(text("input ", text_of(Plan::input)));
  const auto line = []<class Layer>(std::type_identity<Layer>, const nn::node& n) {
    return text(n.name.view(), " ", Layer::type_name, "(", Layer::settings(), ") ", n.trainable, " -> ",
                text_of(n.out));
  };
  (lines.push_back(line(std::type_identity<typename Plan::template layer<I>>{}, Plan::nodes[I])), ...);
  return lines;
}

inline void compare(std::vector<std::string>& lines, const std::string& name, const io::json& found,
                    const io::json& wanted) {
  const auto of_strings = [](const io::json& list) {
    return list.is_array() && list.size() > 0 && list.items()[0].is_string();
  };
  if (of_strings(found) && of_strings(wanted) && found.size() == wanted.size()) {
    for (std::size_t i = 0; i < found.size(); ++i)
      compare(lines, text(name, "[", i, "]"), found.items()[i], wanted.items()[i]);
    return;
  }
  const auto value = [&](const io::json& j) { return of_strings(j) ? text(j.size(), " lines") : j.dump(); };
  if (found.dump() != wanted.dump())
    lines.push_back(text(name, ": the file has ", value(found), ", now ", value(wanted)));
}

}  // namespace detail

/// What a run starts from, beside its options.
struct run_inputs {
  kd::precision precision = kd::precision::fp32;
  normalisation pixels = imagenet_normalisation;  // the network's
  split_digest data = {};                         // of the training split
  std::string teacher = "none";                   // as teacher_identity says
};

/// Changes whenever a recipe gets another member, or an old one another meaning; not for options that are left out at
/// their defaults (formula::option::added_later), as long as these stay as they are.
inline constexpr int recipe_version = 2;

/// Everything that decides the weights, but not the number of epochs, so that a run can be made longer; nor the
/// initial weights, which a state holds. The device, its instruction set and its threads are no part of it: made_with.
template <class Model, class Loss, class Optimiser>
io::json recipe(const Loss& loss, const Optimiser& optimiser, const options& settings, const run_inputs& inputs) {
  using plan = nn::plan_of<Model>;
  io::json out = io::json::object();
  out["version"] = recipe_version;
  out["network"] = detail::layers_of<plan>(std::make_index_sequence<plan::node_count>{});
  out["samples"] = inputs.data.samples;
  out["images"] = inputs.data.images;
  out["labels"] = inputs.data.labels;
  out["teacher"] = inputs.teacher;
  out["precision"] = text_of(inputs.precision);
  detail::describe_loss(out, loss, settings.ramps);
  detail::describe(out, optimiser);
  detail::describe(out, settings.schedule);
  out["batch_size"] = settings.batch_size;
  out["drop_last"] = settings.drop_last;
  out["seed"] = settings.seed;
  io::json pixels = io::json::array();
  for (const float x : inputs.pixels.mean) pixels.push_back(x);
  for (const float x : inputs.pixels.std) pixels.push_back(x);
  out["pixels"] = std::move(pixels);
  out["crop_padding"] = settings.augment.crop_padding;
  out["flip"] = settings.augment.flip;
  return out;
}

/// The recipe of a trainer. Reads the whole training split, and the teacher's logits or weights.
template <class Trainer>
io::json recipe_of(const Trainer& run) {
  using network = std::remove_cvref_t<decltype(run.network())>;
  return recipe<typename network::model>(run.loss(), run.optimiser(), run.settings(),
                                         {.precision = run.network().device().precision(),
                                          .pixels = run.network().pixels(),
                                          .data = digest_of(run.set().train),
                                          .teacher = teacher_identity(run.teacher())});
}

/// In what two recipes differ, a line each: "learning_rate: the file has 0.001, now 0.01". Empty: they are the same.
inline std::vector<std::string> recipe_differences(const io::json& found, const io::json& wanted) {
  static const io::json nothing;
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const io::json* const other = found.find(wanted.names()[i]);
    detail::compare(lines, wanted.names()[i], other == nullptr ? nothing : *other, wanted.items()[i]);
  }
  for (std::size_t i = 0; i < found.size(); ++i)
    if (wanted.find(found.names()[i]) == nullptr) detail::compare(lines, found.names()[i], found.items()[i], nothing);
  return lines;
}

/// Where a run was made, for the record: the results of two machines may differ in their last bits.
template <class Device>
io::json made_with(const Device& device) {
  io::json out = io::json::object();
  out["kd_version"] = version;
  out["device"] = Device::name;
  if constexpr (requires { device.description(); }) out["description"] = device.description();
  if constexpr (requires { device.threads().threads; }) out["threads"] = device.threads().threads;
  out["instruction_set"] = instruction_set;
  return out;
}

}  // namespace kd::inline KD_ABI::train
