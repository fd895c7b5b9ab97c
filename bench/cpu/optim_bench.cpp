/// The optimisers' updates against the memory bandwidth of the same machine.
///
/// triad/cpu/N: a[i] = b[i] + s * c[i], 12 bytes per element, the yardstick; adam/cpu/N and the like: all of N weights,
/// 12 bytes each and 8 for each state; adam_live/cpu/resnet18_layer4: the four weights 512 x 3 x 3 x 512 (one 256 in)
/// of layer 4 at 32x32 input, live taps alone, where bytes count the live weights. Buffers exceed the caches except
/// where N is small.
#include <benchmark/benchmark.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kd/cpu/optim.hpp"
#include "kd/optim/all_rules.hpp"

namespace {

using kd::cpu::parallel;
using kd::optim::live_runs;

template <class Rule>
struct buffers {
  std::vector<float> w, g;
  std::array<std::vector<float>, Rule::states> states;
  kd::optim::state_buffers<Rule> pointers;

  explicit buffers(std::size_t n) : w(n, 1.0f), g(n, 0.01f) {
    for (std::size_t i = 0; i < states.size(); ++i) {
      states[i].resize(n);
      pointers[i] = states[i].data();
    }
  }
};

template <class Rule>
std::size_t bytes_each(const Rule& rule) {
  return 12 + 8 * (kd::formula::uses_states(rule) ? Rule::states : 0);
}

void set_bytes(benchmark::State& state, std::size_t elements, std::size_t each) {
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * static_cast<std::int64_t>(elements * each));
}

void triad(benchmark::State& state) {
  const auto n = static_cast<std::size_t>(state.range(0));
  const parallel par{static_cast<int>(state.range(1))};
  std::vector<float> a(n), b(n, 1.0f), c(n, 2.0f);
  for (auto _ : state) {
    par.split(n, [&](std::size_t begin, std::size_t end, std::size_t) {
      float* const to = a.data();
      const float *const x = b.data(), *const y = c.data();
#if defined(_OPENMP)
#pragma omp simd
#endif
      for (std::size_t i = begin; i < end; ++i) to[i] = x[i] + 3.0f * y[i];
    });
    benchmark::ClobberMemory();
  }
  set_bytes(state, n, 12);
}

template <class Rule>
void update(benchmark::State& state, const Rule& rule) {
  const auto n = static_cast<std::size_t>(state.range(0));
  const parallel par{static_cast<int>(state.range(1))};
  buffers<Rule> b(n);
  std::uint64_t step = 0;
  for (auto _ : state) {
    kd::cpu::update(par, rule, rule.learning_rate, ++step, n, b.w.data(), b.g.data(), b.pointers);
    benchmark::ClobberMemory();
  }
  set_bytes(state, n, bytes_each(rule));
}

void adam_live(benchmark::State& state) {
  const parallel par{static_cast<int>(state.range(0))};
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
  buffers<kd::optim::adam> b(offset);
  std::uint64_t step = 0;
  for (auto _ : state) {
    kd::cpu::update(par, rule, 1e-3, ++step, runs, b.w.data(), b.g.data(), b.pointers);
    benchmark::ClobberMemory();
  }
  state.counters["all_weights"] = static_cast<double>(offset);
  state.counters["live_weights"] = static_cast<double>(live);
  set_bytes(state, live, bytes_each(rule));
}

void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t threads : {std::int64_t{1}, std::int64_t{parallel::available()}})
    for (const std::int64_t n : {std::int64_t{267'738}, std::int64_t{11'181'642}}) b->Args({n, threads});
  b->ArgNames({"", "threads"})->Unit(benchmark::kMillisecond)->UseRealTime();
}

template <class Rule>
void add(const char* name, const Rule& rule) {
  benchmark::RegisterBenchmark(kd::text(name, "/cpu").c_str(), [rule](benchmark::State& state) {
    update(state, rule);
  })->Apply(sizes);
}

BENCHMARK(triad)->Name("triad/cpu")->Apply(sizes);
const bool added = [] {
  [&]<class... Rules>(kd::type_list<Rules...>) { (add(Rules::name, Rules{}), ...); }(kd::optim::all_rules{});
  add("sgd_momentum", kd::optim::sgd{.momentum = 0.9});
  return true;
}();
BENCHMARK(adam_live)
    ->Name("adam_live/cpu/resnet18_layer4")
    ->ArgName("threads")
    ->Arg(1)
    ->Arg(parallel::available())
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
