/// The state of a run on disk, so that a run that was stopped goes on to bit-equal weights.
#pragma once

#include <algorithm>
#include <array>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kd/io/json.hpp"
#include "kd/io/safetensors.hpp"
#include "kd/train/recipe.hpp"
#include "kd/train/trainer.hpp"
#include "kd/train/weights.hpp"

namespace kd::inline KD_ABI::train {

namespace detail {

/// The members of an epoch in JSON that are no terms.
inline constexpr std::string_view epoch_members[] = {"epoch",          "loss",          "teacher_agreement",
                                                     "train_accuracy", "learning_rate", "seconds"};

}  // namespace detail

/// An epoch as a JSON object, as it stands in logs, checkpoints and results: every term is a member of its name.
inline io::json to_json(const epoch_record& r) {
  io::json out = io::json::object();
  out["epoch"] = r.epoch;
  out["loss"] = r.loss;
  for (const term& one : r.terms) out[one.name] = one.value;
  out["teacher_agreement"] = r.teacher_agreement;
  out["train_accuracy"] = r.accuracy;
  out["learning_rate"] = r.learning_rate;
  out["seconds"] = r.seconds;
  return out;
}

inline epoch_record epoch_from_json(const io::json& j) {
  epoch_record r{.epoch = static_cast<std::size_t>(j.at("epoch").as_unsigned()),
                 .loss = j.at("loss").as_number(),
                 .teacher_agreement = j.at("teacher_agreement").as_number(),
                 .accuracy = j.at("train_accuracy").as_number(),
                 .learning_rate = j.at("learning_rate").as_number(),
                 .seconds = j.at("seconds").as_number()};
  // Every loss once had the same three terms, two of them under other names, and those of a teacher were 0 without one.
  const bool earlier = j.find("soft_ce") != nullptr;
  const bool no_teacher = earlier && j.at("kd").as_number() == 0 && j.at("soft_ce").as_number() == 0;
  for (std::size_t i = 0; i < j.size(); ++i) {
    const std::string& name = j.names()[i];
    if (std::ranges::find(detail::epoch_members, name) != std::end(detail::epoch_members)) continue;
    if (no_teacher && name != "ce") continue;
    r.terms.push_back({earlier && name == "ce"        ? "cross_entropy"
                       : earlier && name == "soft_ce" ? "soft_cross_entropy"
                                                      : name,
                       j.items()[i].as_number()});
  }
  return r;
}

namespace detail {

inline constexpr std::string_view state_version = "2";  // of the layout of a state file
inline constexpr const char* state_prefix = "optimizer.";

/// "optimizer.0.features.0.weight": the optimiser's number i for one tensor.
inline std::string state_name(std::size_t i, const nn::tensor_info& info) {
  return text(state_prefix, i, ".", info.name.view());
}

}  // namespace detail

/// The recipe that a state file was written with. Throws file_error where it is none, or has another version.
inline io::json state_recipe(const io::safetensors_file& file) {
  const std::string* version = file.find_metadata("kd.state");
  const std::string* recipe = file.find_metadata("kd.recipe");
  if (recipe == nullptr || file.find_metadata("kd.history") == nullptr)
    throw file_error(text(file.path(),
                          ": metadata \"kd.recipe\" and \"kd.history\" are missing, this is no training state of kd; "
                          "give weights to load_weights, or another file"));
  if (version == nullptr || *version != detail::state_version)
    throw file_error(text(file.path(), ": a training state of version ", version == nullptr ? "1" : *version,
                          " was written by another kd, this one reads version ", detail::state_version,
                          "; finish the run with the kd that began it, or delete the file to begin anew"));
  return io::json::parse(*recipe, text(file.path(), ": kd.recipe"));
}

/// Throws file_error that names each difference between the recipe found in a file and the one that is wanted.
inline void expect_recipe(const std::string& path, const io::json& found, const io::json& wanted) {
  const std::vector<std::string> differences = recipe_differences(found, wanted);
  if (differences.empty()) return;
  std::string lines;
  for (const std::string& line : differences) lines += text("\n  ", line);
  throw file_error(text(path, ": the run was started otherwise:", lines,
                        "\nuse the same settings and data, or another file, or delete this one to begin anew"));
}

/// Writes weights, optimiser state, recipe and history to one file, atomically.
/// @param recipe recipe_of(run), which does not change during a run
template <class Trainer>
void save_state(const Trainer& run, const std::string& path, const io::json& recipe) {
  io::safetensors_writer file;
  io::json history = io::json::array();
  for (const epoch_record& record : run.history()) history.push_back(to_json(record));
  file.metadata("kd.state", detail::state_version);
  file.metadata("kd.recipe", recipe.dump());
  file.metadata("kd.made_with", made_with(run.network().device()).dump());
  file.metadata("kd.history", history.dump());
  add_weights(file, run.network());
  for (std::size_t i = 0; i < Trainer::states; ++i)
    for (const nn::tensor_info& info : Trainer::network_type::plan::tensors)
      if (info.spec.trainable)
        file.add(detail::state_name(i, info), detail::extents_of(info.spec), run.network().read(info, run.state(i)));
  file.write(path);
}
template <class Trainer>
void save_state(const Trainer& run, const std::string& path) {
  save_state(run, path, recipe_of(run));
}

/// Takes up a run where save_state left it. Throws file_error where the file is damaged, of another version, or of
/// another recipe: each difference is named. The run is then as it was.
template <class Trainer>
void load_state(Trainer& run, const std::string& path, const io::json& recipe) {
  using plan = typename Trainer::network_type::plan;
  const io::safetensors_file file = io::safetensors_file::open(path);
  expect_recipe(path, state_recipe(file), recipe);
  const io::json list = io::json::parse(*file.find_metadata("kd.history"), text(path, ": kd.history"));
  std::vector<epoch_record> history;
  for (const io::json& record : list.items()) history.push_back(epoch_from_json(record));
  std::array<std::vector<std::vector<float>>, Trainer::states> states;
  for (std::size_t i = 0; i < Trainer::states; ++i)
    for (const nn::tensor_info& info : plan::tensors) {
      states[i].emplace_back(info.spec.trainable ? info.spec.size() : 0);
      if (info.spec.trainable)
        file.read(detail::state_name(i, info), detail::extents_of(info.spec), std::span<float>(states[i].back()));
    }
  load_options weights;
  if (Trainer::states > 0) weights.skip = {detail::state_prefix};
  read_weights(file, run.network(), weights);
  for (std::size_t i = 0; i < Trainer::states; ++i)
    for (std::size_t t = 0; t < plan::tensors.size(); ++t)
      if (plan::tensors[t].spec.trainable) run.network().write(plan::tensors[t], states[i][t].data(), run.state(i));
  run.restore_history(std::move(history));
}
template <class Trainer>
void load_state(Trainer& run, const std::string& path) {
  load_state(run, path, recipe_of(run));
}

}  // namespace kd::inline KD_ABI::train
