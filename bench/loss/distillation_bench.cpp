// The distillation loss and its gradient: fused, and as separate portable operations (one thread), the same inputs.
// Arguments: rows, classes, threads. Bytes: student and teacher logits read once, the gradient written once.

#include <benchmark/benchmark.h>

#include <vector>

#include "kd/cpu/logit_loss.hpp"
#include "kd/loss/distillation.hpp"
#include "loss/logits.hpp"
#include "loss/unfused.hpp"

namespace {

using kd_bench::logits;

void count_bytes(benchmark::State& state, const logits& in) {
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(in.bytes()));
}

void fused(benchmark::State& state, std::size_t rows, std::size_t classes, float temperature, int threads) {
  logits in(rows, classes);
  const kd::cpu::parallel par{threads};
  std::vector<std::byte> scratch(kd::cpu::logit_loss_scratch(par, rows, classes));
  const auto batch = in.batch();
  const kd::distillation loss = {.temperature = temperature};
  for (auto _ : state) {
    const auto result = kd::cpu::logit_loss_forward_backward(par, batch, loss, scratch);
    benchmark::DoNotOptimize(result.terms.total);
    benchmark::ClobberMemory();
  }
  count_bytes(state, in);
}

void unfused(benchmark::State& state, std::size_t rows, std::size_t classes, float temperature) {
  logits in(rows, classes);
  std::vector<float> workspace(kd_bench::unfused::distillation_workspace(rows, classes));
  for (auto _ : state) {
    double total = kd_bench::unfused::distillation_forward_backward(rows, classes, in.student.data(), in.teacher.data(),
                                                                    in.labels.data(), {.temperature = temperature},
                                                                    in.d_student.data(), workspace.data());
    benchmark::DoNotOptimize(total);
    benchmark::ClobberMemory();
  }
  count_bytes(state, in);
}

void add_all() {
  const std::size_t shapes[][2] = {{128, 10}, {128, 100}, {128, 1000}, {4096, 1000}, {1024, 32000}, {512, 128256}};
  const int threads = kd::cpu::parallel::available();
  const auto name = [](const char* op, std::size_t rows, std::size_t classes, const char* more) {
    return kd::text(op, "/cpu/", rows, "x", classes, more);
  };
  for (const auto& [rows, classes] : shapes) {
    const auto add = [rows = rows, classes = classes](const std::string& called, auto function, auto... rest) {
      benchmark::RegisterBenchmark(called.c_str(), [=](benchmark::State& s) { function(s, rows, classes, rest...); })
          ->UseRealTime()
          ->Unit(benchmark::kMicrosecond);
    };
    add(name("distillation", rows, classes, ""), fused, 2.0f, threads);
    add(name("distillation", rows, classes, "/one_thread"), fused, 2.0f, 1);
    add(name("distillation", rows, classes, "/T=4"), fused, 4.0f, threads);
    add(name("distillation_unfused", rows, classes, ""), unfused, 2.0f);
  }
}

[[maybe_unused]] const bool added = (add_all(), true);

}  // namespace
