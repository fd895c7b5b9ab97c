/// Threads of the CPU device: OpenMP where the translation unit is compiled with it, one thread otherwise.
#pragma once

#include <algorithm>
#include <cstddef>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/shape.hpp"
#include "kd/cpu/processor_quota.hpp"

namespace kd::inline KD_ABI::cpu {

/// Samples per block of the activation layout [block][H][W][C][lanes], the same on every instruction set.
inline constexpr std::size_t lanes = 16;

/// Blocks of `lanes` samples that hold a batch.
constexpr std::size_t blocks_of(std::size_t batch) { return (batch + lanes - 1) / lanes; }

/// How many threads a kernel may use. Work is cut into contiguous parts of the *output*, so that no sum is ever split
/// by thread and results are bit-equal for any number of threads.
struct parallel {
  /// More than this is a mistake, and the OpenMP runtime ends the process where it cannot make them.
  static constexpr int most_threads = 1024;

  constexpr parallel() = default;
  /// Throws argument_error unless 1 <= threads <= most_threads.
  constexpr parallel(int count) : threads(count) {
    if (count < 1)
      reject_argument("kd::cpu::parallel", "threads must be at least 1", count, "pass --threads 1 or more");
    if (count > most_threads)
      reject_argument("kd::cpu::parallel", text("threads must be at most ", most_threads), count,
                      "pass --threads with the number of processors, or leave it out");
  }

  int threads = 1;

  /// Calls part(begin, end, thread) once per thread over [0, count); runs inline where one thread suffices.
  template <class Part>
  void split(std::size_t count, const Part& part) const {
    const std::size_t parts = std::min<std::size_t>(count, static_cast<std::size_t>(std::max(threads, 1)));
    if (parts <= 1) {
      if (count > 0) part(std::size_t{0}, count, std::size_t{0});
      return;
    }
#if defined(_OPENMP)
#pragma omp parallel num_threads(static_cast <int>(parts))
    {
      // The runtime may grant fewer threads than asked for; every part is done all the same.
      const auto team = static_cast<std::size_t>(omp_get_num_threads());
      for (auto p = static_cast<std::size_t>(omp_get_thread_num()); p < parts; p += team)
        part(count * p / parts, count * (p + 1) / parts, p);
    }
#else
    for (std::size_t p = 0; p < parts; ++p) part(count * p / parts, count * (p + 1) / parts, p);
#endif
  }

  /// Calls body(i) for every i of [0, count).
  template <class Body>
  void for_each(std::size_t count, const Body& body) const {
    split(count, [&](std::size_t begin, std::size_t end, std::size_t) {
      for (std::size_t i = begin; i < end; ++i) body(i);
    });
  }

  /// The threads that are worth having: as many as OMP_NUM_THREADS, the processors that this process may run on and the
  /// CPU quota of its cgroup allow, at least 1; 1 without OpenMP. Of a quota's fraction of a processor nothing is used:
  /// threads that wait for one another at every kernel's end cannot share it.
  static int available() {
#if defined(_OPENMP)
    const double allowed =
        std::min({static_cast<double>(omp_get_max_threads()), static_cast<double>(omp_get_num_procs()),
                  processor_quota(), static_cast<double>(most_threads)});
    return std::max(static_cast<int>(allowed), 1);
#else
    return 1;
#endif
  }
};

}  // namespace kd::inline KD_ABI::cpu
