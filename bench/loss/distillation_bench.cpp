// The distillation loss and its gradient: fused, and as separate portable operations (one thread), the same inputs.
// Arguments: rows, classes, threads. Bytes: student and teacher logits read once, the gradient written once.

#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "kd/core/random.hpp"
#include "kd/cpu/distillation.hpp"
#include "kd/loss/unfused.hpp"

namespace {

struct inputs {
  std::size_t rows, classes;
  std::vector<float> student, teacher, d_student;
  std::vector<std::int32_t> labels;

  inputs(std::size_t rows_, std::size_t classes_) : rows(rows_), classes(classes_) {
    const std::size_t size = rows * classes;
    student.resize(size);
    teacher.resize(size);
    d_student.assign(size, 1.0f);
    for (std::size_t i = 0; i < size; ++i) {
      const auto words = kd::random_at(1, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i));
      student[i] = 8 * kd::uniform(words[0]) - 4;
      teacher[i] = 14 * kd::uniform(words[1]) - 7;
    }
    for (std::size_t row = 0; row < rows; ++row) labels.push_back(static_cast<std::int32_t>(row * 7919 % classes));
  }
};

void count_bytes(benchmark::State& state, const inputs& in) {
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(3 * sizeof(float) * in.rows * in.classes));
}

void fused(benchmark::State& state, std::size_t rows, std::size_t classes, float temperature, int threads) {
  inputs in(rows, classes);
  const kd::cpu::parallel par{threads};
  std::vector<std::byte> scratch(kd::cpu::distillation_scratch(par, rows, classes));
  for (auto _ : state) {
    const auto result = kd::cpu::distillation_forward_backward(par, rows, classes, in.student.data(), in.teacher.data(),
                                                               in.labels.data(), {.temperature = temperature},
                                                               in.d_student.data(), scratch);
    benchmark::DoNotOptimize(result.terms.total);
    benchmark::ClobberMemory();
  }
  count_bytes(state, in);
}

void unfused(benchmark::State& state, std::size_t rows, std::size_t classes, float temperature) {
  inputs in(rows, classes);
  std::vector<float> workspace(kd::unfused::distillation_workspace(rows, classes));
  for (auto _ : state) {
    const auto terms = kd::unfused::distillation_forward_backward(rows, classes, in.student.data(), in.teacher.data(),
                                                                  in.labels.data(), {.temperature = temperature},
                                                                  in.d_student.data(), workspace.data());
    benchmark::DoNotOptimize(terms.total);
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
