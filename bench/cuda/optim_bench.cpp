/// The optimisers' updates on a GPU beside a device-to-device copy of the bytes that they move.
///
/// adam/cuda/N and the like: all of N weights, 28 bytes each for Adam, 20 for SGD with momentum, 12 without.
/// adam_live/cuda/resnet18_layer4: the four weights 512 x 3 x 3 x 512 (one 256 in) of layer 4 at 32x32 input, live taps
/// alone, where bytes count the live weights.
#include "kd/cuda/optim.hpp"

#include <span>

#include "cuda/rotated_sets.hpp"
#include "kd/optim/factors.hpp"

namespace {

using namespace kd_bench;
using kd::optim::live_runs;

struct weights {
  kd::cuda::buffer<float> w, g, m, v;

  weights(const kd::cuda::stream& s, std::size_t n)
      : w(filled<float>(s, n, 1)),
        g(filled<float>(s, n, 2)),
        m(filled<float>(s, n, 3, true)),
        v(filled<float>(s, n, 4, true)) {}
};

template <class Rule>
void update(benchmark::State& state, const Rule& rule, std::size_t n, const std::vector<live_runs>& runs,
            double bytes) {
  const kd::cuda::stream s;
  const kd::cuda::update_plan plan(s, runs);
  const auto packed = kd::optim::pack_factors(kd::optim::factors(rule, rule.learning_rate, 2));
  kd::cuda::buffer<float> factors(packed.size());
  kd::cuda::upload(s, packed.data(), packed.size(), factors.data());
  std::vector<weights> sets;
  for (std::size_t i = 0; i < sets_of(bytes); ++i) sets.emplace_back(s, n);
  time_sets(state, s, sets.size(), bytes, [&](std::size_t i) {
    weights& on = sets[i];
    if constexpr (Rule::states == 2)
      kd::cuda::update_adam(s, plan, factors.data(), on.w.data(), on.g.data(), on.m.data(), on.v.data(), nullptr);
    else
      kd::cuda::update_sgd(s, plan, factors.data(), on.w.data(), on.g.data(), on.m.data(), nullptr);
  });
}

template <class Rule>
void add(const std::string& operation, const Rule& rule, std::size_t n, std::size_t bytes_each) {
  const auto bytes = static_cast<double>(n * bytes_each);
  add_benchmark(kd::text(operation, "/cuda/", n), bytes, [rule, n, bytes](benchmark::State& state) {
    update(state, rule, n, {live_runs{0, n, n, 1}}, bytes);
  });
}

void add_live() {
  const kd::conv2d_geometry first{256, 2, 2, 512, 3, 3, 2, 2, 1, 1}, others{512, 1, 1, 512, 3, 3, 1, 1, 1, 1};
  std::vector<live_runs> runs;
  std::size_t offset = 0, live = 0;
  for (const kd::conv2d_geometry& g : {first, others, others, others}) {
    const auto list = kd::optim::live_runs_of(g, offset);
    for (const live_runs& r : std::span<const live_runs>(list)) runs.push_back(r);
    live += list.size();
    offset += g.weights();
  }
  const auto bytes = static_cast<double>(live * 28);
  add_benchmark("adam_live/cuda/resnet18_layer4", bytes, [runs, offset, bytes](benchmark::State& state) {
    update(state, kd::optim::adam{}, offset, runs, bytes);
  });
}

// The weights of LightNN and of ResNet18.
const bool added = [] {
  for (const std::size_t n : {std::size_t{267'738}, std::size_t{11'181'642}}) {
    add("adam", kd::optim::adam{}, n, 28);
    add("adamw", kd::optim::adamw{}, n, 28);
    add("sgd", kd::optim::sgd{}, n, 12);
    add("sgd_momentum", kd::optim::sgd{.momentum = 0.9}, n, 20);
  }
  add_live();
  return true;
}();

}  // namespace
