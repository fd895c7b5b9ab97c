// The distillation loss and its gradient: fused, and as separate portable operations (one thread), the same inputs.
// Arguments: rows, classes. Bytes: student and teacher logits read once, the gradient written once; of_triad: their
// rate over that of a streamed triad in the same run, above 1 where rows stay in the caches. error: of the gradient
// against the definition in float64, over the largest of its row, the worst of four rows. scratch: bytes beside the
// arrays.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "../../tests/support/compare.hpp"
#include "kd/cpu/logit_loss.hpp"
#include "kd/loss/distillation.hpp"
#include "loss/logits.hpp"
#include "loss/streamed_triad.hpp"
#include "loss/unfused.hpp"

namespace {

using kd_bench::logits;

void count_bytes(benchmark::State& state, const logits& in) {
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(in.bytes()));
}

/// The worst difference of a row's gradient from the definition, over the largest element.
double error_of(const logits& in, std::size_t row, double T, const kd::distillation& loss) {
  const std::size_t classes = in.classes;
  const float* const z = &in.student[row * classes];
  const float* const t = &in.teacher[row * classes];
  const auto softmax = [&](const float* x, double temperature) {
    std::vector<double> p(classes);
    const double most = *std::max_element(x, x + classes);
    double sum = 0;
    for (std::size_t c = 0; c < classes; ++c) sum += p[c] = std::exp((x[c] - most) / temperature);
    for (double& v : p) v /= sum;
    return p;
  };
  const auto q = softmax(z, T), p = softmax(t, T), h = softmax(z, 1);
  std::vector<double> differences, wants;
  for (std::size_t c = 0; c < classes; ++c) {
    const double label = static_cast<std::size_t>(in.labels[row]) == c ? 1 : 0;
    const double want = (double{loss.kd_weight} * T * (q[c] - p[c]) + double{loss.ce_weight} * (h[c] - label)) /
                        static_cast<double>(in.rows);
    differences.push_back(in.d_student[row * classes + c] - want);
    wants.push_back(want);
  }
  return kd_test::largest_magnitude(differences) / kd_test::largest_magnitude(wants);
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
  std::vector<double> errors;
  for (std::size_t i = 0; i < 4; ++i) errors.push_back(error_of(in, i * (rows - 1) / 3, temperature, loss));
  state.counters["error"] = kd_test::largest_magnitude(errors);
  state.counters["scratch"] = static_cast<double>(scratch.size());
  state.counters["of_triad"] = benchmark::Counter(static_cast<double>(in.bytes()) / kd_bench::streamed_triad(par),
                                                  benchmark::Counter::kIsIterationInvariantRate);
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
  const std::size_t shapes[][2] = {{128, 10},     {128, 100},    {128, 1000},    {4096, 1000}, {1024, 32000},
                                   {2048, 50257}, {512, 128256}, {1024, 151936}, {256, 262144}};
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
    if (rows * classes <= std::size_t{512} * 128256)
      add(name("distillation_unfused", rows, classes, ""), unfused, 2.0f);
  }
}

/// distillation_classes/cpu/CLASSES: as many rows as make about 4 million logits, 16 at least; ns_per_class is that of
/// one logit. A loss without a cliff is a curve without a step.
void add_classes() {
  for (const std::size_t classes :
       {2,    3,    4,    8,    10,    16,    17,    32,    33,    48,    64,    65,     96,     100,   128,
        129,  200,  256,  257,  384,   512,   513,   768,   1000,  1024,  1025,  1536,   2048,   2049,  3000,
        4096, 4097, 8192, 8193, 10000, 16384, 16385, 32000, 50257, 65536, 65537, 128256, 151936, 262144})
    benchmark::RegisterBenchmark(kd::text("distillation_classes/cpu/", classes).c_str(),
                                 [classes](benchmark::State& s) {
                                   const std::size_t rows = std::max<std::size_t>(16, (std::size_t{4} << 20) / classes);
                                   fused(s, rows, classes, 2.0f, kd::cpu::parallel::available());
                                   s.counters["ns_per_class"] = benchmark::Counter(
                                       1e-9 * static_cast<double>(rows * classes),
                                       benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
                                 })
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
}

[[maybe_unused]] const bool added = (add_all(), add_classes(), true);

}  // namespace
