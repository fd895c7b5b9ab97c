/// What a device must offer, one concept per family of operations. Layers, losses and training only know these.
///
/// Pointers lie in the device's memory. Activations are in the device's own layout, `padded(batch)` samples of them;
/// lanes beyond the batch hold anything finite, and their gradients hold zeros. Weights are [out][kh][kw][in]. Every
/// backward operation overwrites, except where it takes `accumulate`.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kd/core/image_view.hpp"
#include "kd/core/precision.hpp"
#include "kd/core/random.hpp"
#include "kd/core/shape.hpp"
#include "kd/core/step_scalars.hpp"
#include "kd/core/type_list.hpp"
#include "kd/loss/cross_entropy.hpp"
#include "kd/loss/distillation.hpp"
#include "kd/loss/formula_of.hpp"
#include "kd/loss/loss_meter.hpp"
#include "kd/optim/all_rules.hpp"
#include "kd/optim/live_runs.hpp"
#include "kd/optim/rule.hpp"

namespace kd::inline KD_ABI::backend {

/// Memory: allocation (zeroed), copies to and from the host, and the room that a batch takes.
template <class D>
concept memory = requires(D& d, std::size_t n, const float* from, float* to) {
  typename D::template buffer<float>;
  { D::padded(n) } -> std::same_as<std::size_t>;
  { d.template allocate<float>(n) } -> std::same_as<typename D::template buffer<float>>;
  d.upload(from, n, to);
  d.download(from, n, to);
};

/// Products: convolutions, alone or with relu and a 2x2 max pool behind them, and linear layers.
template <class D>
concept products = requires(D& d, const conv2d_geometry& g, std::size_t n, const float* in, float* out, bool flag) {
  { D::conv2d_scratch(g, n) } -> std::same_as<std::size_t>;
  { D::linear_scratch(n, n, n) } -> std::same_as<std::size_t>;
  d.conv2d_forward(g, n, in, in, in, flag, out);
  d.conv2d_backward_data(g, n, in, in, flag, out, out);
  d.conv2d_backward_weight(g, n, in, in, out, out, out);
  d.conv2d_relu_pool_forward(g, n, in, in, in, out, out);
  d.conv2d_relu_pool_backward_data(g, n, in, in, in, flag, out, out);
  d.conv2d_relu_pool_backward_weight(g, n, in, in, in, out, out, out);
  d.linear_forward(n, n, n, in, in, in, flag, out);
  d.linear_backward_data(n, n, n, in, in, flag, out, out);
  d.linear_backward_weight(n, n, n, in, in, out, out, out);
};

/// Batch normalisation, with the residual sum and relu behind it.
template <class D>
concept normalisations = requires(D& d, const shape& s, std::size_t n, const float* in, float* out, float x,
                                  bool flag) {
  { D::batch_norm2d_scratch(s, n) } -> std::same_as<std::size_t>;
  d.batch_norm2d_forward_train(s, n, in, in, in, x, x, in, flag, out, out, out, out, out, out);
  d.batch_norm2d_forward_infer(s, n, in, in, in, in, in, x, in, flag, out);
  d.batch_norm2d_backward(s, n, in, in, in, in, in, in, flag, out, out, out, out, out);
};

/// Elementwise operations, pooling and changes of layout.
template <class D>
concept activations = requires(D& d, const shape& s, const pool2d_geometry& g, std::size_t n, const float* in,
                               float* out, const step_random& random, std::uint32_t layer) {
  d.relu_forward(s, n, in, out);
  d.relu_backward(s, n, in, in, out);
  d.dropout(s, n, 0.5f, random, layer, in, out);
  d.flatten_forward(s, n, in, out);
  d.flatten_backward(s, n, in, out);
  d.add(s, n, in, in, out);
  d.copy(s, n, in, out);
  d.max_pool2d_forward(g, n, in, out, out);
  d.max_pool2d_backward(g, n, in, in, out);
  d.global_avg_pool2d_forward(s, n, in, out);
  d.global_avg_pool2d_backward(s, n, in, out);
};

/// One step of an optimiser's rule on the weights of a plan.
template <class D, class Rule>
concept updates_by = optim::rule<Rule> &&
    requires(D& d, const Rule& rule, std::span<const optim::live_runs> runs, const optim::factors_of<Rule>* factors,
             float* w, const float* g, const optim::state_buffers<Rule>& states, const loss_meter* meter) {
  d.update(rule, d.plan_update(runs), factors, w, g, states, meter);
};
namespace detail {

template <class D, class... Rules>
constexpr bool updates_by_each(type_list<Rules...>) {
  return (updates_by<D, Rules> && ...);
}

}  // namespace detail

template <class D>
concept updates = detail::updates_by_each<D>(optim::all_rules{});

/// What a whole training step needs besides the network. All numbers that differ from step to step are read from the
/// device's memory while the step runs: `replay` may record what it calls, and later only repeat it.
template <class D>
concept training = requires(D& d, const step_scalars* table, step_scalars* current, const std::uint32_t* order,
                            std::uint32_t* indices, const std::int32_t* labels, std::int32_t* batch_labels,
                            std::size_t n, const float* in, float* out, const shape& s, const image_batch& images,
                            typename D::template buffer<std::byte>& scratch, loss_meter* meter,
                            const formula_of<distillation>* kd, const formula_of<cross_entropy>* ce,
                            std::span<const optim::live_runs> runs, typename D::recordings& recordings,
                            void (*step)()) {
  { D::rows_in_place } -> std::convertible_to<bool>;  // logits [N,C] lie as rows already
  { D::runs_at_once } -> std::convertible_to<bool>;   // results are there when a call returns
  { d.precision() } -> std::same_as<kd::precision>;   // of products: part of a run's recipe
  d.resident(std::span<const float>{});
  d.begin_step(table, indices, current, order, labels, in, n, n, indices, batch_labels, out);
  d.gather_images(images, imagenet_normalisation, augmentation{}, step_random{}, out);
  d.to_rows(s, n, in, out);
  d.from_rows(s, n, in, out);
  { d.loss_scratch(n, n) } -> std::same_as<std::size_t>;
  d.accumulate_loss(distillation{}, kd, n, n, in, in, labels, out, scratch, meter);
  d.accumulate_loss(cross_entropy{}, ce, n, n, in, in, labels, out, scratch, meter);
  d.replay(recordings, std::array<std::uint64_t, 3>{}, step);
  d.synchronize();
};

template <class D>
concept device = training<D> && updates<D> && memory<D> && products<D> && normalisations<D> && activations<D>;

}  // namespace kd::inline KD_ABI::backend
