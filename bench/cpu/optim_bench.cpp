/// The optimisers' update against the memory bandwidth of the same machine.
///
/// triad/cpu/N: a[i] = b[i] + s * c[i], 12 bytes per element, the yardstick; adam/cpu/N: all of N weights, 28 bytes
/// each; adam_live/cpu/resnet18_layer4: the four weights 512 x 3 x 3 x 512 (one 256 in) of layer 4 at 32x32 input, live
/// taps alone, where bytes count the live weights. Buffers exceed the caches except where N is small.
#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kd/cpu/optim.hpp"

namespace {

using kd::cpu::parallel;
using kd::optim::live_runs;

struct buffers {
  std::vector<float> w, g, m, v;
  explicit buffers(std::size_t n) : w(n, 1.0f), g(n, 0.01f), m(n), v(n) {}
};

void set_bytes(benchmark::State& state, std::size_t elements, std::size_t bytes_each) {
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) *
                          static_cast<std::int64_t>(elements * bytes_each));
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
void update(benchmark::State& state, const Rule& rule, std::size_t bytes_each) {
  const auto n = static_cast<std::size_t>(state.range(0));
  const parallel par{static_cast<int>(state.range(1))};
  buffers b(n);
  std::uint64_t step = 0;
  for (auto _ : state) {
    kd::cpu::update(par, rule, rule.learning_rate, ++step, n, b.w.data(), b.g.data(), b.m.data(), b.v.data());
    benchmark::ClobberMemory();
  }
  set_bytes(state, n, bytes_each);
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
  buffers b(offset);
  std::uint64_t step = 0;
  for (auto _ : state) {
    kd::cpu::update(par, kd::optim::adam{}, 1e-3, ++step, runs, b.w.data(), b.g.data(), b.m.data(), b.v.data());
    benchmark::ClobberMemory();
  }
  state.counters["all_weights"] = static_cast<double>(offset);
  state.counters["live_weights"] = static_cast<double>(live);
  set_bytes(state, live, 28);
}

void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t threads : {std::int64_t{1}, std::int64_t{parallel::available()}})
    for (const std::int64_t n : {std::int64_t{267'738}, std::int64_t{11'181'642}}) b->Args({n, threads});
  b->ArgNames({"", "threads"})->Unit(benchmark::kMillisecond)->UseRealTime();
}

void adam(benchmark::State& state) { update(state, kd::optim::adam{}, 28); }
void adamw(benchmark::State& state) { update(state, kd::optim::adamw{}, 28); }
void sgd(benchmark::State& state) { update(state, kd::optim::sgd{}, 12); }
void sgd_momentum(benchmark::State& state) { update(state, kd::optim::sgd{.momentum = 0.9}, 20); }

BENCHMARK(triad)->Name("triad/cpu")->Apply(sizes);
BENCHMARK(adam)->Name("adam/cpu")->Apply(sizes);
BENCHMARK(adamw)->Name("adamw/cpu")->Apply(sizes);
BENCHMARK(sgd)->Name("sgd/cpu")->Apply(sizes);
BENCHMARK(sgd_momentum)->Name("sgd_momentum/cpu")->Apply(sizes);
BENCHMARK(adam_live)
    ->Name("adam_live/cpu/resnet18_layer4")
    ->ArgName("threads")
    ->Arg(1)
    ->Arg(parallel::available())
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
