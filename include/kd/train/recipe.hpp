/// The settings of a run as JSON: a state file is only continued with those that it was started with.
#pragma once

#include "kd/core/type_list.hpp"
#include "kd/io/json.hpp"
#include "kd/loss/cross_entropy.hpp"
#include "kd/loss/distillation.hpp"
#include "kd/optim/adam.hpp"
#include "kd/optim/sgd.hpp"
#include "kd/train/options.hpp"

namespace kd::inline KD_ABI::train {

namespace detail {

inline void describe(io::json& out, const cross_entropy&) { out["loss"] = cross_entropy::name; }
inline void describe(io::json& out, const distillation& loss) {
  out["loss"] = distillation::name;
  out["temperature"] = loss.temperature;
  out["kd_weight"] = loss.kd_weight;
  out["ce_weight"] = loss.ce_weight;
}
/// What the overloads here do not name, a type derived from one of those included: it would be taken for another.
template <class Setting>
void describe(io::json&, const Setting&) {
  static_assert(
      no_branch_for<Setting>,
      "kd::train::recipe: cannot describe this loss or optimiser: a run with it could be continued as another");
}
template <class Adam>
void describe_adam(io::json& out, const Adam& rule) {
  out["optimiser"] = Adam::name;
  out["learning_rate"] = rule.learning_rate;
  out["beta1"] = rule.beta1;
  out["beta2"] = rule.beta2;
  out["epsilon"] = rule.epsilon;
  out["weight_decay"] = rule.weight_decay;
}
inline void describe(io::json& out, const optim::adam& rule) { describe_adam(out, rule); }
inline void describe(io::json& out, const optim::adamw& rule) { describe_adam(out, rule); }
inline void describe(io::json& out, const optim::sgd& rule) {
  out["optimiser"] = optim::sgd::name;
  out["learning_rate"] = rule.learning_rate;
  out["momentum"] = rule.momentum;
  out["dampening"] = rule.dampening;
  out["weight_decay"] = rule.weight_decay;
  out["nesterov"] = rule.nesterov;
}
inline void describe(io::json& out, const optim::schedule& s) {
  io::json numbers = io::json::array();
  for (const double x : {s.size, s.gamma, s.period, s.lowest, s.steps, s.rise, s.divisor, s.final_divisor})
    numbers.push_back(x);
  out["schedule"] = static_cast<int>(s.shape);
  out["schedule_numbers"] = std::move(numbers);
}

}  // namespace detail

/// Everything that decides the weights, but not the number of epochs, so that a run can be made longer. `norm` is the
/// network's.
template <class Loss, class Optimiser>
io::json recipe(const Loss& loss, const Optimiser& optimiser, const options& settings, const normalisation& norm) {
  io::json out = io::json::object();
  detail::describe(out, loss);
  detail::describe(out, optimiser);
  detail::describe(out, settings.schedule);
  out["batch_size"] = settings.batch_size;
  out["seed"] = settings.seed;
  io::json pixels = io::json::array();
  for (const float x : norm.mean) pixels.push_back(x);
  for (const float x : norm.std) pixels.push_back(x);
  out["pixels"] = std::move(pixels);
  out["crop_padding"] = settings.augment.crop_padding;
  out["flip"] = settings.augment.flip;
  return out;
}

}  // namespace kd::inline KD_ABI::train
