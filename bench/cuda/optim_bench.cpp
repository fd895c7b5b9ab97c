/// The optimisers' updates on a GPU beside a device-to-device copy of the bytes that they move.
///
/// adam/cuda/N and the like: all of N weights, 12 bytes each and 8 for each state. adam_live/cuda/resnet18_layer4: the
/// four weights 512 x 3 x 3 x 512 (one 256 in) of layer 4 at 32x32 input, live taps alone, where bytes count the live
/// weights.
#include "kd/cuda/optim.hpp"

#include <span>

#include "cuda/rotated_sets.hpp"
#include "kd/optim/all_rules.hpp"

namespace {

using namespace kd_bench;
using kd::optim::live_runs;

template <class Rule>
struct weights {
  kd::cuda::buffer<float> w, g;
  std::vector<kd::cuda::buffer<float>> states;
  kd::optim::state_buffers<Rule> pointers;

  weights(const kd::cuda::stream& s, std::size_t n) : w(filled<float>(s, n, 1)), g(filled<float>(s, n, 2)) {
    for (float*& state : pointers) state = states.emplace_back(zeros<float>(s, n)).data();
  }
};

template <class Rule>
std::size_t bytes_each(const Rule& rule) {
  return 12 + 8 * (kd::formula::uses_states(rule) ? Rule::states : 0);
}

template <class Rule>
void update(benchmark::State& state, const Rule& rule, std::size_t n, const std::vector<live_runs>& runs,
            double bytes) {
  const kd::cuda::stream s;
  const kd::cuda::update_plan plan(s, runs);
  const auto now = rule.factors(rule.learning_rate, 2);
  kd::cuda::buffer<kd::optim::factors_of<Rule>> factors(1);
  kd::cuda::upload(s, &now, 1, factors.data());
  std::vector<weights<Rule>> sets;
  for (std::size_t i = 0; i < sets_of(bytes); ++i) sets.emplace_back(s, n);
  time_sets(state, s, sets.size(), bytes, [&](std::size_t i) {
    weights<Rule>& on = sets[i];
    kd::cuda::update(s, plan, rule, factors.data(), on.w.data(), on.g.data(), on.pointers, nullptr);
  });
}

template <class Rule>
void add(const char* name, const Rule& rule, std::size_t n) {
  const auto bytes = static_cast<double>(n * bytes_each(rule));
  add_benchmark(kd::text(name, "/cuda/", n), bytes, [rule, n, bytes](benchmark::State& state) {
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
  const kd::optim::adam rule;
  const auto bytes = static_cast<double>(live * bytes_each(rule));
  add_benchmark("adam_live/cuda/resnet18_layer4", bytes,
                [rule, runs, offset, bytes](benchmark::State& state) { update(state, rule, offset, runs, bytes); });
}

// The weights of LightNN and of ResNet18.
const bool added = [] {
  for (const std::size_t n : {std::size_t{267'738}, std::size_t{11'181'642}}) {
    [&]<class... Rules>(kd::type_list<Rules...>) { (add(Rules::name, Rules{}, n), ...); }(kd::optim::all_rules{});
    add("sgd_momentum", kd::optim::sgd{.momentum = 0.9}, n);
  }
  add_live();
  return true;
}();

}  // namespace
