/// GFLOP/s of the convolutions and linear layers of ResNet18 (ImageNet stem, 32x32 input), LightNN and SimpleNN at
/// batch 128, useful operations only: products with padding are not counted. The pooled passes
/// are counted as the dense ones that they replace. Names are <pass>/cpu/<layer>/<threads>.
#include "kd/cpu/conv2d.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <new>
#include <string>
#include <vector>

#include "cpu/conv2d_layers.hpp"

namespace {

/// Floats aligned to 64 bytes, filled with small numbers.
struct buffer {
  std::vector<float> storage;
  float* data;
  explicit buffer(std::size_t size) : storage(size + 16) {
    for (std::size_t i = 0; i < storage.size(); ++i) storage[i] = static_cast<float>(i * 7919 % 1009) / 1009.0f - 0.5f;
    auto address = reinterpret_cast<std::uintptr_t>(storage.data());
    data = storage.data() + (64 - address % 64) % 64 / sizeof(float);
  }
};

struct problem {
  conv2d_geometry g;
  kd::cpu::parallel threads;
  buffer x, y, weight, dx, dy, dw, bias, scratch, pooled;
  std::vector<std::uint8_t> argmax;
  problem(const conv2d_geometry& geometry, int count)
      : g(geometry),
        threads{count},
        x(g.in().size() * batch),
        y(g.out().size() * batch),
        weight(g.weights()),
        dx(g.in().size() * batch),
        dy(g.out().size() * batch),
        dw(g.weights()),
        bias(g.out_channels),
        scratch(kd::cpu::conv2d_scratch(g, batch)),
        pooled(g.out().size() * batch),
        argmax(pooled.storage.size()) {
    for (std::size_t i = 0; i < argmax.size(); ++i) argmax[i] = static_cast<std::uint8_t>(i * 2654435761u / 65536 % 5);
  }
};

template <class Pass>
void measure(benchmark::State& state, const conv2d_geometry& g, int threads, const Pass& pass) {
  problem p(g, threads);
  for (auto _ : state) {
    pass(p);
    benchmark::ClobberMemory();
  }
  state.counters["GFLOP/s"] = benchmark::Counter(operations(g) * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void forward(problem& p) {
  kd::cpu::conv2d_forward(p.threads, p.g, batch, p.x.data, p.weight.data, {p.bias.data, true}, p.y.data);
}
void backward_data(problem& p) {
  kd::cpu::conv2d_backward_data(p.threads, p.g, batch, p.dy.data, p.weight.data, false, p.dx.data, p.scratch.data);
}
void backward_weight(problem& p) {
  kd::cpu::conv2d_backward_weight(p.threads, p.g, batch, p.x.data, p.dy.data, p.dw.data, p.bias.data, p.scratch.data,
                                  false);
}

void relu_pool_forward(problem& p) {
  kd::cpu::conv2d_relu_pool_forward(p.threads, p.g, batch, p.x.data, p.weight.data, p.bias.data, p.pooled.data,
                                    p.argmax.data());
}
void relu_pool_backward_data(problem& p) {
  kd::cpu::conv2d_relu_pool_backward_data(p.threads, p.g, batch, p.pooled.data, p.argmax.data(), p.weight.data, false,
                                          p.dx.data, p.scratch.data);
}
void relu_pool_backward_weight(problem& p) {
  kd::cpu::conv2d_relu_pool_backward_weight(p.threads, p.g, batch, p.x.data, p.pooled.data, p.argmax.data(), p.dw.data,
                                            p.bias.data, p.scratch.data);
}

/// Registers every pass of every layer.
[[maybe_unused]] const bool registered = [] {
  const auto add = [](const std::string& pass, const layer& l, int threads, auto function) {
    benchmark::RegisterBenchmark((pass + "/cpu/" + l.name + "/" + std::to_string(threads)).c_str(),
                                 [=, g = l.g](benchmark::State& s) { measure(s, g, threads, function); })
        ->UseRealTime();
  };
  for (const layer& l : layers)
    for (const int threads : {1, 2}) {
      add("forward", l, threads, forward);
      add("backward_data", l, threads, backward_data);
      add("backward_weight", l, threads, backward_weight);
      if (std::string(l.name).find("features") == std::string::npos) continue;
      add("relu_pool_forward", l, threads, relu_pool_forward);
      add("relu_pool_backward_data", l, threads, relu_pool_backward_data);
      add("relu_pool_backward_weight", l, threads, relu_pool_backward_weight);
    }
  return true;
}();

}  // namespace
