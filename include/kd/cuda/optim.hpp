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

template <class Rule>
KD_HIDDEN void update(const stream& s, const update_plan& plan, const std::uint32_t* stop, const Rule& rule,
                      bool aligned) {
  if (!aligned)
    reject_argument("kd::cuda::update", "weights, gradients and states must be aligned to 16 bytes", false,
                    "pass the beginning of a buffer");
  launch(s, "update", blocks_for(plan.items(), kernel::elementwise_threads), kernel::elementwise_threads, 0,
         kernel::update<Rule>, plan.groups(), plan.starts(), plan.items(), stop, rule);
}

}  // namespace detail

/// One step of Adam or AdamW on the weights of the plan; no other element of any buffer is read or written.
/// @param factors in device memory: optim::adam_factors as packed by optim::pack_factors
/// @param m, v moments, zero before the first step
/// @param stop in device memory: where it is not 0, nothing is touched; null for never
/// @throws argument_error when a buffer is not aligned to 16 bytes
KD_HIDDEN inline void update_adam(const stream& s, const update_plan& plan, const float* factors, float* w,
                                  const float* g, float* m, float* v, const std::uint32_t* stop) {
  detail::update(s, plan, stop, kernel::adam_of{.factors = factors, .w = w, .g = g, .m = m, .v = v},
                 detail::aligned_to(16, w, g, m, v));
}

/// One step of SGD, as update_adam.
/// @param factors in device memory: optim::sgd_factors as packed by optim::pack_factors
/// @param b momentum buffer, zero before the first step; neither read nor written without momentum, and may then be
/// null
KD_HIDDEN inline void update_sgd(const stream& s, const update_plan& plan, const float* factors, float* w,
                                 const float* g, float* b, const std::uint32_t* stop) {
  detail::update(s, plan, stop, kernel::sgd_of{.factors = factors, .w = w, .g = g, .b = b},
                 detail::aligned_to(16, w, g, b));
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
