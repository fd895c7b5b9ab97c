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

  template <std::size_t I>
  static constexpr void add_node(list& all) {
    constexpr nn::node n = plan::nodes[I];
    if constexpr (n.kind == nn::layer_kind::conv2d) {
      constexpr conv2d_geometry g = plan::template layer<I>::geometry(n.in);
      const optim::live_run_list live = optim::live_runs_of(g, n.parameters);
      for (std::size_t i = 0; i < live.used; ++i) all.add(live.groups[i]);
      all.add(optim::runs_of({n.parameters + g.weights(), n.parameters + n.trainable}));
    } else {
      all.add(optim::runs_of({n.parameters, n.parameters + n.trainable}));
    }
  }
  template <std::size_t... I>
  static constexpr list collect(std::index_sequence<I...>) {
    list all;
    (add_node<I>(all), ...);
    return all;
  }
  static constexpr list live = collect(std::make_index_sequence<plan::node_count>{});
  static constexpr std::array<optim::live_runs, 1> all_of{optim::runs_of({0, plan::parameter_count})};

 public:
  /// How many can move.
  static constexpr std::size_t count = [] {
    std::size_t sum = 0;
    for (std::size_t i = 0; i < live.used; ++i) sum += live.runs[i].size();
    return sum;
  }();
  /// The runs that an optimiser has to touch: all parameters where it moves weights without a gradient (weight decay).
  static constexpr std::span<const optim::live_runs> runs(bool skip_dead) {
    return skip_dead ? std::span<const optim::live_runs>(live.runs.data(), live.used)
                     : std::span<const optim::live_runs>(all_of);
  }
};

}  // namespace kd::inline KD_ABI::train
