// Losses on products, hidden states times an output matrix, with the logits of one chunk of rows in memory; beside them
// the multiplications and additions that the processor can do. Arguments: rows, classes, width of the student's and of
// the teacher's hidden states, MiB that the call may allocate. FLOP/s: the products alone, three for the student and
// one for the teacher; rows_at_once and MiB: the chunk and what the call allocates.

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kd/core/random.hpp"
#include "kd/loss/distillation.hpp"
#include "kd/loss/linear_loss.hpp"

namespace {

template <class T>
std::vector<T> numbers(std::size_t count, float scale, std::uint32_t which) {
  std::vector<T> out(count);
  for (std::size_t i = 0; i < count; ++i)
    out[i] = kd::cpu::detail::from_float<T>(
        scale *
        (2 * kd::uniform(kd::random_at(which, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i))[0]) -
         1));
  return out;
}

template <class T>
void linear_loss(benchmark::State& state) {
  const auto size = [&](int i) { return static_cast<std::size_t>(state.range(i)); };
  const std::size_t rows = size(0), classes = size(1), width = size(2), teacher_width = size(3);
  const auto hidden = numbers<T>(rows * width, 1, 1), teacher_hidden = numbers<T>(rows * teacher_width, 1, 3);
  const auto matrix = numbers<T>(classes * width, 0.1f, 2),
             teacher_matrix = numbers<T>(classes * teacher_width, 0.1f, 4);
  std::vector<float> d_hidden(hidden.size()), d_matrix(matrix.size());
  std::vector<std::int32_t> labels(rows);
  for (std::size_t row = 0; row < rows; ++row) labels[row] = static_cast<std::int32_t>(row * 7919 % classes);
  const kd::linear_batch<T> batch{.rows = rows,
                                  .classes = classes,
                                  .student = {hidden.data(), matrix.data(), width},
                                  .teacher = {teacher_hidden.data(), teacher_matrix.data(), teacher_width},
                                  .labels = labels.data(),
                                  .d_hidden = d_hidden.data(),
                                  .d_matrix = d_matrix.data(),
                                  .memory = size(4) << 20};
  const kd::cpu::device cpu;
  const kd::linear_chunk chunk = kd::linear_chunks(kd::distillation{}, batch, cpu);
  for (auto _ : state) {
    const kd::loss_terms terms = kd::forward_backward(kd::distillation{}, batch, cpu);
    benchmark::DoNotOptimize(terms.total);
    benchmark::ClobberMemory();
  }
  state.counters["FLOP/s"] =
      benchmark::Counter(2.0 * static_cast<double>(rows * classes) * static_cast<double>(3 * width + teacher_width),
                         benchmark::Counter::kIsIterationInvariantRate);
  state.counters["rows_at_once"] = static_cast<double>(chunk.rows);
  state.counters["MiB"] = static_cast<double>(chunk.bytes) / (1 << 20);
}

/// Products and sums of registers alone, on all threads.
void multiply_add(benchmark::State& state) {
  constexpr std::size_t width = kd::cpu::native_width, sums = 12;
  constexpr std::size_t rounds = 1 << 20;
  const kd::cpu::device cpu;
  const auto threads = static_cast<std::size_t>(cpu.threads().threads);
  std::vector<float> out(threads * 16);
  for (auto _ : state) {
    cpu.threads().split(threads, [&](std::size_t, std::size_t, std::size_t thread) {
      float number = 0.999f;
      benchmark::DoNotOptimize(number);
      const kd::cpu::vector_of<width> factor = kd::cpu::vector_of<width>{} + number;
      kd::cpu::vector_of<width> sum[sums] = {};
      for (std::size_t j = 0; j < sums; ++j) sum[j] += static_cast<float>(j);  // equal sums would be computed once
      for (std::size_t i = 0; i < rounds; ++i) {
        KD_UNROLL(12)
        for (std::size_t j = 0; j < sums; ++j) sum[j] = sum[j] * factor + factor;
      }
      for (std::size_t j = 0; j < sums; ++j) out[thread * 16] += sum[j][0];
    });
    benchmark::DoNotOptimize(out.data());
  }
  state.counters["FLOP/s"] = benchmark::Counter(2.0 * width * sums * rounds * static_cast<double>(threads),
                                                benchmark::Counter::kIsIterationInvariantRate);
}

BENCHMARK(multiply_add)->Name("multiply_add/cpu")->UseRealTime();
BENCHMARK_TEMPLATE(linear_loss, float)
    ->Name("linear_loss/cpu/fp32")
    ->Args({512, 32000, 512, 1024, 64})
    ->Args({512, 32000, 512, 1024, 256})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_TEMPLATE(linear_loss, kd::bfloat16)
    ->Name("linear_loss/cpu/bf16")
    ->Args({512, 32000, 512, 1024, 64})
    ->Args({512, 32000, 512, 1024, 256})
    ->Args({512, 128256, 2048, 4096, 256})
    ->Args({512, 128256, 2048, 4096, 1024})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
