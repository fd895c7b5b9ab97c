/// The state of a run on disk, so that a run that was stopped goes on to bit-equal weights.
#pragma once

#include <string>
#include <vector>

#include "kd/io/json.hpp"
#include "kd/io/safetensors.hpp"
#include "kd/train/recipe.hpp"
#include "kd/train/trainer.hpp"
#include "kd/train/weights.hpp"

namespace kd::inline KD_ABI::train {

/// An epoch as a JSON object, as it stands in logs, checkpoints and results.
inline io::json to_json(const epoch_record& r) {
  io::json out = io::json::object();
  out["epoch"] = r.epoch;
  out["loss"] = r.loss;
  out["ce"] = r.cross_entropy;
  out["kd"] = r.kd;
  out["soft_ce"] = r.soft_cross_entropy;
  out["teacher_agreement"] = r.teacher_agreement;
  out["train_accuracy"] = r.accuracy;
  out["learning_rate"] = r.learning_rate;
  out["seconds"] = r.seconds;
  return out;
}

inline epoch_record epoch_from_json(const io::json& j) {
  return {.epoch = static_cast<std::size_t>(j.at("epoch").as_unsigned()),
          .loss = j.at("loss").as_number(),
          .cross_entropy = j.at("ce").as_number(),
          .kd = j.at("kd").as_number(),
          .soft_cross_entropy = j.at("soft_ce").as_number(),
          .teacher_agreement = j.at("teacher_agreement").as_number(),
          .accuracy = j.at("train_accuracy").as_number(),
          .learning_rate = j.at("learning_rate").as_number(),
          .seconds = j.at("seconds").as_number()};
}

namespace detail {

inline constexpr const char* moment_prefix = "optimizer.";

template <class Trainer>
std::string recipe_of(const Trainer& run) {
  return recipe(run.loss(), run.optimiser(), run.settings(), run.network().pixels()).dump();
}

}  // namespace detail

/// Writes weights, optimiser state, recipe and history to one file, atomically.
template <class Trainer>
void save_state(const Trainer& run, const std::string& path) {
  io::safetensors_writer file;
  io::json history = io::json::array();
  for (const epoch_record& record : run.history()) history.push_back(to_json(record));
  file.metadata("kd.recipe", detail::recipe_of(run));
  file.metadata("kd.history", history.dump());
  add_weights(file, run.network());
  std::vector<float> moment(run.network().parameter_floats);
  for (std::size_t i = 0; i < Trainer::states; ++i) {
    run.network().device().download(run.moment(i), moment.size(), moment.data());
    file.add(text(detail::moment_prefix, i), {moment.size()}, moment);
  }
  file.write(path);
}

/// Takes up a run where save_state left it. Throws file_error where the file is damaged, of another network, or was
/// made with other settings; the run is then as it was.
template <class Trainer>
void load_state(Trainer& run, const std::string& path) {
  const io::safetensors_file file = io::safetensors_file::open(path);
  const std::string* recipe = file.find_metadata("kd.recipe");
  const std::string* past = file.find_metadata("kd.history");
  if (recipe == nullptr || past == nullptr)
    throw file_error(text(path,
                          ": metadata \"kd.recipe\" and \"kd.history\" are missing, this is no training state of kd; "
                          "give weights to load_weights, or another file"));
  const std::string mine = detail::recipe_of(run);
  if (*recipe != mine)
    throw file_error(text(path, ": the run was started with other settings: ", *recipe, ", now ", mine,
                          "; use the same settings, or another folder"));
  const io::json list = io::json::parse(*past, text(path, ": kd.history"));
  std::vector<epoch_record> history;
  for (const io::json& record : list.items()) history.push_back(epoch_from_json(record));
  std::vector<std::vector<float>> moments(Trainer::states, std::vector<float>(run.network().parameter_floats));
  for (std::size_t i = 0; i < Trainer::states; ++i)
    file.read(text(detail::moment_prefix, i), std::vector<std::uint64_t>{moments[i].size()},
              std::span<float>(moments[i]));
  read_weights(file, run.network(), {detail::moment_prefix});
  for (std::size_t i = 0; i < Trainer::states; ++i)
    run.network().device().upload(moments[i].data(), moments[i].size(), run.moment(i));
  run.restore_history(std::move(history));
}

}  // namespace kd::inline KD_ABI::train
