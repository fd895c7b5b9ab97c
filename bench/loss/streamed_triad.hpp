/// The rate at which memory can be read and written, which losses of large rows are held against.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <limits>

#include "kd/cpu/buffer.hpp"
#include "kd/cpu/detail/loss_row.hpp"
#include "kd/cpu/parallel.hpp"

namespace kd_bench {

/// Bytes a second of a[i] = b[i] + 3 c[i], stores past the caches, 64 MiB an array: the best of ten runs, once a
/// program.
inline double streamed_triad(const kd::cpu::parallel& threads) {
  static const double rate = [&] {
    constexpr std::size_t count = std::size_t{16} << 20, width = kd::cpu::native_width, block = 4096;
    kd::cpu::buffer<float> a(count), b(count), c(count);
    std::fill_n(b.data(), count, 1.0f);
    std::fill_n(c.data(), count, 2.0f);
    double best = std::numeric_limits<double>::infinity();
    for (int run = 0; run < 10; ++run) {
      const auto begin = std::chrono::steady_clock::now();
      threads.split(count / block, [&](std::size_t first, std::size_t last, std::size_t) {
        for (std::size_t i = first * block; i < last * block; i += width)
          kd::cpu::detail::store_streamed<width>(a.data() + i, kd::cpu::detail::load<width>(b.data() + i) +
                                                                   3.0f * kd::cpu::detail::load<width>(c.data() + i));
        kd::cpu::detail::finish_streaming();
      });
      best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    return 3.0 * sizeof(float) * count / best;
  }();
  return rate;
}

}  // namespace kd_bench
