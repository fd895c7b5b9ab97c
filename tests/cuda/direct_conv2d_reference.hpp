/// Problems for the test of the direct 3x3 convolutions and their answers by definition, in float64.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "kd/core/random.hpp"
#include "kd/core/shape.hpp"
#include "kd/kernel/number.cuh"
#include "support/compare.hpp"

namespace kd_test {

/// A sum of products with the bound of its rounding errors: n additions in float are within n * 2^-24 of the sum of the
/// magnitudes, in any order (Higham, Accuracy and Stability, section 3.1).
struct rounded_sum {
  double value = 0, magnitude = 0, terms = 2;

  void add(double product) {
    value += product;
    magnitude += std::abs(product);
    terms += 1;
  }
  /// Storing as bfloat16, 8 significant bits, costs 2^-8 of the value more.
  template <class T>
  double tolerance() const {
    const double stored = std::is_same_v<T, float> ? 0 : std::ldexp(std::abs(value), -8) * 1.01;
    return std::ldexp(terms * magnitude, -24) + stored + 1e-30;
  }
};

inline std::vector<rounded_sum> after_relu(std::vector<rounded_sum> sums) {
  for (rounded_sum& s : sums)
    if (s.value < 0) s.value = 0;
  return sums;
}

enum class values { reals, small_integers };

struct conv2d_reference {
  kd::conv2d_geometry g;
  std::size_t batch;
  std::vector<double> x, w, bias, dy, dx, d_pooled;  // exact in bfloat16, but for w and bias, which are in float
  std::vector<std::uint8_t> winners;

  conv2d_reference(const kd::conv2d_geometry& geometry, std::size_t n, values kind = values::reals)
      : g(geometry), batch(n) {
    const std::size_t pooled = n * g.out_channels * (g.out_height() / 2) * (g.out_width() / 2);
    x = numbers(1, n * g.in().size(), kind, true);
    w = numbers(2, g.weights(), kind, false);
    bias = numbers(3, g.out_channels, kind, false);
    dy = numbers(4, n * g.out().size(), kind, true);
    dx = numbers(5, n * g.in().size(), kind, true);
    d_pooled = numbers(6, pooled, kind, true);
    for (std::size_t i = 0; i < pooled; ++i)
      winners.push_back(static_cast<std::uint8_t>(kd::uniform_below(word(7, i), 5)));
  }

  bool pools() const { return g.out_height() % 2 == 0 && g.out_width() % 2 == 0; }

  /// Calls body(index in y, index in w, index in x) for every product of the convolution.
  template <class Body>
  void for_each_product(const Body& body) const {
    const std::size_t height = g.in_height, width = g.in_width;
    for (std::size_t n = 0; n < batch; ++n)
      for (std::size_t out = 0; out < height * width; ++out)
        for (std::size_t tap = 0; tap < 9; ++tap) {
          const std::size_t h = out / width + tap / 3, v = out % width + tap % 3;  // one more than the input's
          if (h < 1 || h > height || v < 1 || v > width) continue;
          for (std::size_t co = 0; co < g.out_channels; ++co)
            for (std::size_t ci = 0; ci < g.in_channels; ++ci)
              body((n * height * width + out) * g.out_channels + co, (co * 9 + tap) * g.in_channels + ci,
                   ((n * height + h - 1) * width + v - 1) * g.in_channels + ci);
        }
  }

  std::vector<rounded_sum> forward(bool with_bias) const {
    std::vector<rounded_sum> y(dy.size());
    for_each_product([&](std::size_t out, std::size_t weight, std::size_t in) { y[out].add(x[in] * w[weight]); });
    for (std::size_t i = 0; with_bias && i < y.size(); ++i) y[i].add(bias[i % g.out_channels]);
    return y;
  }

  struct gradient_sums {
    std::vector<rounded_sum> dx, dw, db;
  };
  gradient_sums gradients(const std::vector<double>& d_y) const {
    gradient_sums d{std::vector<rounded_sum>(x.size()), std::vector<rounded_sum>(w.size()),
                    std::vector<rounded_sum>(bias.size())};
    for_each_product([&](std::size_t out, std::size_t weight, std::size_t in) {
      d.dx[in].add(d_y[out] * w[weight]);
      d.dw[weight].add(d_y[out] * x[in]);
    });
    for (std::size_t i = 0; i < d_y.size(); ++i) d.db[i % g.out_channels].add(d_y[i]);
    return d;
  }
  std::vector<rounded_sum> added_to_dx(std::vector<rounded_sum> sums) const {
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i].add(dx[i]);
    return sums;
  }

  /// Index in y of position q of the window of pooled value i.
  std::size_t in_window(std::size_t i, std::size_t q) const {
    const std::size_t across = g.out_width() / 2, pixel = i / g.out_channels;
    const std::size_t h = pixel / across * 2 + q / 2, v = pixel % across * 2 + q % 2;  // rows of all samples
    return (h * g.out_width() + v) * g.out_channels + i % g.out_channels;
  }
  /// The gradient before the pool, for d_pooled and winners.
  std::vector<double> unpooled() const {
    std::vector<double> d(dy.size());
    for (std::size_t i = 0; i < d_pooled.size(); ++i)
      if (winners[i] < 4) d[in_window(i, winners[i])] = d_pooled[i];
    return d;
  }

 private:
  static std::uint32_t word(std::uint32_t of, std::size_t i) {
    return kd::random_at(7, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i), of)[0];
  }
  static std::vector<double> numbers(std::uint32_t of, std::size_t size, values kind, bool brief) {
    std::vector<double> all(size);
    for (std::size_t i = 0; i < size; ++i) {
      const float real = 2 * kd::uniform(word(of, i)) - 1;
      all[i] = kind == values::small_integers ? static_cast<double>(kd::uniform_below(word(of, i), 3)) - 1
               : brief ? double{kd::kernel::to_float(kd::kernel::from_float<kd::kernel::bfloat16>(real))}
                       : double{real};
    }
    return all;
  }
};

/// relu and 2x2 max pool of the convolution's sums: the first of equal maxima, NaN before numbers, as PyTorch.
struct pooled_values {
  std::vector<double> value;
  std::vector<std::uint8_t> winners;
  std::size_t ties = 0, lost = 0;

  pooled_values(const conv2d_reference& p, const std::vector<rounded_sum>& sums) {
    for (std::size_t i = 0; i < p.d_pooled.size(); ++i) {
      double best = sums[p.in_window(i, 0)].value;
      std::uint8_t winner = 0;
      for (std::uint8_t q = 1; q < 4; ++q) {
        const double here = sums[p.in_window(i, q)].value;
        ties += here == best && best > 0 ? 1 : 0;
        if (here > best || std::isnan(here)) {
          best = here;
          winner = q;
        }
      }
      if (best <= 0) {
        best = 0;
        winner = 4;
        ++lost;
      }
      value.push_back(best);
      winners.push_back(winner);
    }
  }
};

/// Sums stored as T.
template <class T>
comparison near_sums(const std::vector<float>& got, const std::vector<rounded_sum>& want) {
  comparison sums("sum");
  sums.add_size(got.size(), want.size());
  for (std::size_t i = 0; i < std::min(got.size(), want.size()); ++i)
    sums.add(double{got[i]}, want[i].value, want[i].tolerance<T>());
  return sums;
}

/// Pooled values, and the sums that their winners name. Where two sums differ by less than their tolerance, either may
/// win.
template <class T>
comparison near_pooled(const conv2d_reference& p, const std::vector<float>& got,
                       const std::vector<std::uint8_t>& winners, const std::vector<rounded_sum>& sums) {
  const pooled_values want(p, sums);
  comparison pooled("pooled value, or sum of the winner");
  pooled.add_size(got.size(), want.value.size());
  pooled.add_size(winners.size(), want.value.size());
  for (std::size_t i = 0; i < std::min({got.size(), winners.size(), want.value.size()}); ++i) {
    rounded_sum best = sums[p.in_window(i, want.winners[i] % 4)];
    double allowed = 0;
    for (std::size_t q = 0; q < 4; ++q) allowed = std::max(allowed, sums[p.in_window(i, q)].tolerance<float>());
    const double won = winners[i] == 4  ? 0
                       : winners[i] < 4 ? sums[p.in_window(i, winners[i])].value
                                        : std::numeric_limits<double>::infinity();
    best.value = want.value[i];
    const double stored = best.tolerance<T>() - best.tolerance<float>();
    pooled.add(double{got[i]}, want.value[i], allowed + stored, i);
    pooled.add(won, want.value[i], 2 * allowed, i);
  }
  return pooled;
}

}  // namespace kd_test
