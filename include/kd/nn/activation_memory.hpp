/// Where every activation, gradient and saved value of a network lies, at compile time.
#pragma once

#include <algorithm>

#include "kd/core/memory_plan.hpp"
#include "kd/nn/plan.hpp"

namespace kd::inline KD_ABI::nn {

/// The memory plan of a model for training or for evaluation. Offsets and sizes are floats per sample, in multiples of
/// 16 bytes whatever the batch.
///
/// Time runs 0 ... n-1 for the forward pass, n for the loss, n+1 ... 2n for the backward pass. A value lives until its
/// last reader; gradients reuse the room of activations that are no longer needed.
template <class Model, bool Training>
class activation_memory {
  using plan = plan_of<Model>;
  static constexpr std::size_t count = plan::node_count;
  static constexpr std::size_t values = plan::value_count;
  static constexpr std::size_t buffers = 2 * values + 3 * count;

  template <std::size_t... I>
  static constexpr auto lifetimes(std::index_sequence<I...>) {
    std::array<lifetime, buffers> all{};
    const auto backward = [](std::size_t i) { return 2 * count - i; };
    const auto use = [](lifetime& l, std::size_t time) {
      l.first = l.size == 0 ? time : std::min(l.first, time);
      l.last = std::max(l.last, time);
    };
    const auto visit = [&]<std::size_t J>(std::integral_constant<std::size_t, J>) {
      using layer = typename plan::template layer<J>;
      constexpr node n = plan::nodes[J];
      if constexpr (!n.absorbed) {
        constexpr shape out = plan::value_shape(n.output);
        lifetime& y = all[n.output];
        y = {out.size(), J, J};
        use(all[n.input], J);
        if (n.second != no_value) use(all[n.second], J);
        lifetime& kept = all[2 * values + J];
        kept = {layer::saved_per_sample(n.in, n.fused), J, J};
        if (!Training) return;
        if (layer::needs_x(n.fused)) use(all[n.input], backward(J));
        if (layer::needs_y(n.fused)) use(y, backward(J));
        use(kept, backward(J));
        // Gradients: written by the readers of a value, read by its producer.
        lifetime& dy = all[values + n.output];
        if (dy.size == 0) dy = {out.size(), backward(J), backward(J)};
        if (n.needs_dx) {
          lifetime& dx = all[values + n.input];
          if (dx.size == 0) dx = {n.in.size(), backward(J), backward(J)};
        }
        if (n.accumulates && !layer::accumulates) all[2 * values + count + J] = {n.in.size(), backward(J), backward(J)};
        if (n.second_accumulates) all[2 * values + 2 * count + J] = {out.size(), backward(J), backward(J)};
      }
    };
    all[0] = {plan::input.size(), 0, 0};
    (visit(std::integral_constant<std::size_t, I>{}), ...);
    for (lifetime& l : all) l.size = aligned_floats(l.size);
    use(all[plan::output_value], count);
    if (Training) {
      // The first writer of a gradient is the last reader of its value.
      for (std::size_t j = 0; j < count; ++j) {
        const node& n = plan::nodes[j];
        if (n.absorbed) continue;
        if (n.needs_dx) use(all[values + n.input], backward(j));
        if (n.second != no_value) use(all[values + n.second], backward(j));
      }
      use(all[values + plan::output_value], count);
    }
    return all;
  }

  static constexpr auto plan_ = place(lifetimes(std::make_index_sequence<count>{}));

 public:
  /// Floats per sample of everything.
  static constexpr std::size_t size = plan_.size;
  static constexpr std::size_t value(std::size_t v) { return plan_.offset[v]; }
  static constexpr std::size_t gradient(std::size_t v) { return plan_.offset[values + v]; }
  static constexpr std::size_t saved(std::size_t node) { return plan_.offset[2 * values + node]; }
  /// Room for a gradient that has to be added to another by a layer that only overwrites.
  static constexpr std::size_t addend(std::size_t node) { return plan_.offset[2 * values + count + node]; }
  static constexpr std::size_t second_addend(std::size_t node) { return plan_.offset[2 * values + 2 * count + node]; }
};

}  // namespace kd::inline KD_ABI::nn
