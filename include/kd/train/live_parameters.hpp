/// The parameters of a network that can ever move: taps that only ever meet padding have no gradient.
#pragma once

#include <array>
#include <cstddef>

#include "kd/nn/plan.hpp"
#include "kd/optim/live_runs.hpp"

namespace kd::inline KD_ABI::train {

/// At 32x32 input with the ImageNet stem 6,946,816 of ResNet18's 11,181,642 weights only ever multiply padding. Their
/// gradient is exactly zero, so that without weight decay an optimiser may skip them and the result is the same.
template <class Model>
class live_parameters {
  using plan = nn::plan_of<Model>;
  static constexpr std::size_t capacity = plan::node_count * 5;
  struct list {
    std::array<optim::live_runs, capacity> runs{};
    std::size_t used = 0;

    constexpr void add(const optim::live_runs& more) {
      if (more.size() == 0) return;
      if (used > 0 && more.count == 1 && runs[used - 1].count == 1) {
        optim::live_runs& last = runs[used - 1];
        if (last.begin + last.run == more.begin) {
          last.run = last.stride = last.run + more.run;
          return;
        }
      }
      if (used == capacity) throw "kd::train::live_parameters: too many runs";
      runs[used++] = more;
    }
  };

  template <bool SkipDead, std::size_t I>
  static constexpr void add_node(list& all) {
    constexpr nn::node n = plan::nodes[I];
    for (std::size_t t = n.tensors; t < n.tensors + n.tensor_count; ++t) {
      const nn::tensor_info& tensor = plan::tensors[t];
      if (!tensor.spec.trainable) continue;
      if constexpr (SkipDead && n.kind == nn::layer_kind::conv2d) {
        if (tensor.spec.rank == 4) {
          const optim::live_run_list weights =
              optim::live_runs_of(plan::template layer<I>::geometry(n.in), tensor.offset);
          for (std::size_t i = 0; i < weights.used; ++i) all.add(weights.groups[i]);
          continue;
        }
      }
      all.add(optim::runs_of({tensor.offset, tensor.offset + tensor.spec.size()}));
    }
  }
  template <bool SkipDead, std::size_t... I>
  static constexpr list collect(std::index_sequence<I...>) {
    list runs;
    (add_node<SkipDead, I>(runs), ...);
    return runs;
  }
  static constexpr list live = collect<true>(std::make_index_sequence<plan::node_count>{});
  static constexpr list all = collect<false>(std::make_index_sequence<plan::node_count>{});

 public:
  /// How many can move.
  static constexpr std::size_t count = [] {
    std::size_t sum = 0;
    for (std::size_t i = 0; i < live.used; ++i) sum += live.runs[i].size();
    return sum;
  }();
  /// The runs that an optimiser has to touch: all parameters where it moves weights without a gradient (weight decay).
  /// What lies between two tensors is in neither.
  static constexpr std::span<const optim::live_runs> runs(bool skip_dead) {
    const list& wanted = skip_dead ? live : all;
    return {wanted.runs.data(), wanted.used};
  }
};

}  // namespace kd::inline KD_ABI::train
