/// The optimisers' updates on the GPU: one launch over the flat buffers, whatever weights it has to touch.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kd/cuda/buffer.hpp"
#include "kd/cuda/elementwise.hpp"
#include "kd/kernel/optim.cuh"
#include "kd/optim/live_runs.hpp"
#include "kd/optim/rule.hpp"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

namespace detail {

/// The items of an update, numbered over all groups.
class update_items {
 public:
  explicit update_items(std::span<const optim::live_runs> places) {
    for (const optim::live_runs& r : places) add(r);
    count_ = next_;
    groups_.push_back({.first = next_, .begin = 0, .stride = 0, .items = 1, .width = 1});  // where the last group ends
    std::uint32_t group = 0;
    for (std::size_t item = 0; item < next_; item += kernel::elementwise_threads) {
      while (item >= groups_[group + 1].first) ++group;
      starts_.push_back(group);
    }
  }

  std::size_t count() const { return count_; }
  const std::vector<kernel::update_group>& groups() const { return groups_; }
  const std::vector<std::uint32_t>& starts() const { return starts_; }

 private:
  /// Whole vectors where the runs are aligned alike, single elements in front of and behind them.
  void add(const optim::live_runs& r) {
    if (r.count > 1 && r.stride % 4 != 0) return push(r.begin, r.run, r, 1);
    const std::size_t head = std::min((4 - r.begin % 4) % 4, r.run), whole = (r.run - head) / 4;
    push(r.begin, head, r, 1);
    push(r.begin + head, whole, r, 4);
    push(r.begin + head + whole * 4, r.run - head - whole * 4, r, 1);
  }
  void push(std::size_t begin, std::size_t items, const optim::live_runs& r, std::uint32_t width) {
    if (items == 0 || r.count == 0) return;
    groups_.push_back({.first = next_, .begin = begin, .stride = r.stride, .items = items, .width = width});
    next_ += items * r.count;
  }

  std::size_t next_ = 0, count_ = 0;
  std::vector<kernel::update_group> groups_;
  std::vector<std::uint32_t> starts_;
};

}  // namespace detail

/// Which weights an update touches, as tables in device memory. Move-only.
class update_plan {
 public:
  /// Uploads in the order of the stream; a later update on another stream has to wait for that itself.
  explicit update_plan(const stream& s, std::span<const optim::live_runs> places)
      : update_plan(s, detail::update_items(places)) {}

  /// Threads that an update needs.
  std::size_t items() const { return items_; }
  const kernel::update_group* groups() const { return groups_.data(); }
  const std::uint32_t* starts() const { return starts_.data(); }

 private:
  update_plan(const stream& s, const detail::update_items& items)
      : items_(items.count()), groups_(items.groups().size()), starts_(items.starts().size()) {
    upload(s, items.groups().data(), items.groups().size(), groups_.data());
    upload(s, items.starts().data(), items.starts().size(), starts_.data());
  }

  std::size_t items_;
  buffer<kernel::update_group> groups_;
  buffer<std::uint32_t> starts_;
};

namespace detail {

template <bool UsesStates, class Rule, class Visibility = kernel::not_shared>
void launch_update(const stream& s, const update_plan& plan, const optim::factors_of<Rule>* factors, float* w,
                   const float* g, const optim::state_buffers<Rule>& states, const std::uint32_t* stop) {
  kernel::rule_of<Rule, UsesStates> rule{.factors = factors, .w = w, .g = g, .state = {}};
  bool aligned = aligned_to(16, w, g);
  for (int i = 0; i < rule.states; ++i) {
    rule.state[i] = states[i];
    aligned = aligned && aligned_to(16, states[i]);
  }
  if (!aligned)
    reject_argument("kd::cuda::update", "weights, gradients and states must be aligned to 16 bytes", false,
                    "pass the beginning of a buffer");
  launch(s, "update", blocks_for(plan.items(), kernel::elementwise_threads), kernel::elementwise_threads, 0,
         kernel::update<kernel::rule_of<Rule, UsesStates>, Visibility>, plan.groups(), plan.starts(), plan.items(),
         stop, rule);
}

}  // namespace detail

/// One step of the rule on the weights of the plan; no other element of any buffer is read or written.
/// @param factors in device memory: rule.factors(...) of this step
/// @param states zero before the first step; those that a rule does not use, sgd's without momentum, may be null
/// @param stop in device memory: where it is not 0, nothing is touched; null for never
/// @throws argument_error when a buffer is not aligned to 16 bytes
template <class Rule, class Visibility = kernel::not_shared>
void update(const stream& s, const update_plan& plan, const Rule& rule, const optim::factors_of<Rule>* factors,
            float* w, const float* g, const optim::state_buffers<Rule>& states, const std::uint32_t* stop) {
  static_assert(optim::rule<Rule>, "kd::cuda::update: the optimiser must be a rule as kd/formula/rule.hpp says it");
  if constexpr (formula::may_leave_states<Rule>)
    if (!rule.uses_states()) return detail::launch_update<false, Rule>(s, plan, factors, w, g, states, stop);
  detail::launch_update<true, Rule>(s, plan, factors, w, g, states, stop);
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
