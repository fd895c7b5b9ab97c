/// Device time of memory-bound operations, as in a training step: sets of arrays that together exceed the caches
/// several times are used in turn, and all their launches are one CUDA graph.
#pragma once

#include <benchmark/benchmark.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kd/core/random.hpp"
#include "kd/cuda/buffer.hpp"
#include "kd/cuda/event.hpp"
#include "kd/cuda/graph.hpp"
#include "kd/cuda/stream.hpp"
#include "kd/kernel/number.cuh"

namespace kd_bench {

using kd::kernel::bfloat16;

template <class T>
constexpr const char* type_name = sizeof(T) == 4 ? "float" : "bfloat16";

/// Sets of `bytes` that hold 512 MiB together (an H200's L2 has 50), but not more than 256.
constexpr std::size_t sets_of(double bytes) {
  return std::clamp<std::size_t>(static_cast<std::size_t>(0x20000000 / std::max(bytes, 1.0)), 2, 256);
}

/// A device array of zeros.
template <class T>
kd::cuda::buffer<T> zeros(const kd::cuda::stream& s, std::size_t n) {
  kd::cuda::buffer<T> device(n);
  kd::cuda::fill_zero(s, device.data(), n);
  s.synchronize();
  return device;
}

/// A device array of values in [-0.5, 0.5), which repeat after a prime number of them; of zeros where `empty`.
template <class T>
kd::cuda::buffer<T> filled(const kd::cuda::stream& s, std::size_t n, std::uint32_t draw, bool empty = false) {
  constexpr std::size_t period = 4099;
  if (empty) return zeros<T>(s, n);
  kd::cuda::buffer<T> device(n);
  std::vector<T> values(std::min(n, period));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto words = kd::random_at(1, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i), draw);
    values[i] = kd::kernel::from_float<T>(kd::uniform(words[0]) - 0.5f);
  }
  kd::cuda::upload(s, values.data(), values.size(), device.data());
  // Whole periods, twice as many each time: a benchmark fills half a GiB each time it is called.
  for (std::size_t done = values.size(); done > 0 && done < n; done = std::min(2 * done, n))
    kd::cuda::copy(s, device.data(), std::min(done, n - done), device.data() + done);
  s.synchronize();
  return device;
}

/// Times work(0) ... work(sets - 1) between two events; each moves `bytes`. Needs UseManualTime.
template <class Work>
void time_sets(benchmark::State& state, const kd::cuda::stream& s, std::size_t sets, double bytes, const Work& work) {
  work(0);  // at once: a kernel that was never launched is loaded then, which not every driver does while it records
  s.synchronize();
  const auto all = kd::cuda::graph::capture(s, [&] {
    for (std::size_t i = 0; i < sets; ++i) work(i);
  });
  kd::cuda::event begin, end;
  all.launch(s);
  // One iteration of Google Benchmark is one work(i), so that its minimum time is that of all sets together.
  while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(sets))) {
    begin.record(s);
    all.launch(s);
    end.record(s);
    end.synchronize();
    state.SetIterationTime(static_cast<double>(end.milliseconds_since(begin)) * 1e-3);
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
}

/// Device-to-device copies that read and write `bytes` together: what the bytes of an operation cost at best.
inline void time_copy(benchmark::State& state, double bytes) {
  const kd::cuda::stream s;
  const std::size_t sets = sets_of(bytes), half = static_cast<std::size_t>(bytes / 2);
  kd::cuda::buffer<unsigned char> from(sets * half), to(sets * half);
  kd::cuda::fill_zero(s, from.data(), from.size());
  time_sets(state, s, sets, 2.0 * static_cast<double>(half), [&](std::size_t i) {
    kd::cuda::check(
        cudaMemcpyAsync(to.data() + i * half, from.data() + i * half, half, cudaMemcpyDeviceToDevice, s.get()),
        "cudaMemcpyAsync on GPU");
  });
}

/// Registers `run`(state) under this name, and beside it a copy of the same bytes.
template <class Run>
void add_benchmark(const std::string& name, double bytes, const Run& run) {
  benchmark::RegisterBenchmark(name.c_str(), run)->UseManualTime()->Unit(benchmark::kMicrosecond);
  benchmark::RegisterBenchmark((name + "/copy_of_its_bytes").c_str(),
                               [bytes](benchmark::State& state) { time_copy(state, bytes); })
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond);
}

}  // namespace kd_bench
