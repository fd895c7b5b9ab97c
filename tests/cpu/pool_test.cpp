#include "kd/cpu/pool.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "kd/core/random.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"

namespace {

using kd::cpu::lanes;
constexpr float infinity = std::numeric_limits<float>::infinity();

// Multiples of 1/8 in [-1, 1]: many ties.
std::vector<float> tied_rows(std::size_t n, std::uint32_t draw) {
  std::vector<float> v(n);
  for (std::size_t i = 0; i < n; ++i) {
    const auto word = kd::random_at(5, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i), draw)[0];
    v[i] = (static_cast<float>(kd::uniform_below(word, 17)) - 8.0f) / 8.0f;
  }
  return v;
}

std::vector<float> blocked(const kd::shape& s, std::size_t batch, const std::vector<float>& rows) {
  std::vector<float> x(kd::cpu::storage_size(s, batch));
  kd::cpu::from_rows({1}, s, batch, rows.data(), x.data());
  return x;
}
std::vector<float> unblocked(const kd::shape& s, std::size_t batch, const std::vector<float>& x) {
  std::vector<float> rows(batch * s.size());
  kd::cpu::to_rows({1}, s, batch, x.data(), rows.data());
  return rows;
}

struct pooled {
  std::vector<float> y;    // [N][C][OH][OW]
  std::vector<double> dx;  // [N][C][H][W]
  std::vector<float> arg;  // [N][C][OH][OW]
};

// PyTorch's loop: the window clipped to the image, > or NaN takes over.
pooled reference(const kd::pool2d_geometry& g, std::size_t batch, const std::vector<float>& x,
                 const std::vector<float>& dy) {
  pooled r;
  r.dx.assign(x.size(), 0.0);
  const std::size_t oh_size = g.out_height(), ow_size = g.out_width();
  for (std::size_t plane = 0; plane < batch * g.channels; ++plane)
    for (std::size_t oh = 0; oh < oh_size; ++oh)
      for (std::size_t ow = 0; ow < ow_size; ++ow) {
        float best = -infinity;
        long best_tap = -1, best_at = -1;
        for (std::size_t kh = 0; kh < g.kernel; ++kh)
          for (std::size_t kw = 0; kw < g.kernel; ++kw) {
            const long h = static_cast<long>(oh * g.stride + kh) - static_cast<long>(g.padding);
            const long w = static_cast<long>(ow * g.stride + kw) - static_cast<long>(g.padding);
            if (h < 0 || w < 0 || h >= static_cast<long>(g.in_height) || w >= static_cast<long>(g.in_width)) continue;
            const long at = (static_cast<long>(plane * g.in_height) + h) * static_cast<long>(g.in_width) + w;
            const float value = x[static_cast<std::size_t>(at)];
            if (best_tap < 0 || value > best || std::isnan(value)) {
              best = value;
              best_tap = static_cast<long>(kh * g.kernel + kw);
              best_at = at;
            }
          }
        r.y.push_back(best);
        r.arg.push_back(static_cast<float>(best_tap));
        r.dx[static_cast<std::size_t>(best_at)] += static_cast<double>(dy[r.y.size() - 1]);
      }
  return r;
}

const kd::pool2d_geometry geometries[] = {{3, 8, 8, 2, 2, 0},  {2, 7, 9, 3, 2, 1},    {1, 5, 5, 3, 1, 1},
                                          {17, 6, 7, 2, 2, 0}, {2, 3, 3, 3, 3, 0},    {1, 1, 1, 2, 2, 1},
                                          {2, 9, 8, 2, 3, 0},  {1, 16, 16, 15, 1, 7}, {5, 4, 4, 1, 1, 0}};

}  // namespace

TEST_CASE("max_pool2d: value, tap and gradient match the definition", "[cpu][pool]") {
  for (const auto& g : geometries)
    for (const std::size_t batch : {1, 15, 17, 33}) {
      CAPTURE(g.in_height, g.in_width, g.kernel, g.stride, g.padding, batch);
      const auto x = tied_rows(batch * g.in().size(), 1), dy = tied_rows(batch * g.out().size(), 2);
      const pooled want = reference(g, batch, x, dy);
      const auto blocked_x = blocked(g.in(), batch, x), blocked_dy = blocked(g.out(), batch, dy);
      std::vector<float> first_y, first_dx;
      for (const int threads : {1, 2}) {
        std::vector<float> y(kd::cpu::storage_size(g.out(), batch), 9.0f), dx(blocked_x.size(), 9.0f);
        std::vector<std::uint8_t> arg(y.size(), 255);
        kd::cpu::max_pool2d_forward({threads}, g, batch, blocked_x.data(), y.data(), arg.data());
        kd::cpu::max_pool2d_backward({threads}, g, batch, blocked_dy.data(), arg.data(), dx.data());
        CHECK(unblocked(g.out(), batch, y) == want.y);
        CHECK(unblocked(g.out(), batch, std::vector<float>(arg.begin(), arg.end())) == want.arg);
        // Sums of few multiples of 1/8: exact.
        CHECK(kd_test::near(unblocked(g.in(), batch, dx), want.dx, {}));
        // Lanes beyond the batch stay 0: writing the rows back gives the same storage.
        CHECK(blocked(g.in(), batch, unblocked(g.in(), batch, dx)) == dx);
        if (threads == 1) {
          first_y = y;
          first_dx = dx;
        }
        CHECK(y == first_y);
        CHECK(dx == first_dx);
      }
    }
}

TEST_CASE("max_pool2d: gradient matches numerical differences", "[cpu][pool]") {
  const kd::pool2d_geometry g{2, 6, 5, 3, 2, 1};
  const std::size_t batch = 2;
  std::vector<float> x(batch * g.in().size());
  // All values distinct and 0.01 apart, so that a step of 0.001 moves no maximum.
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>((i * 37) % x.size()) * 0.01f;
  const auto dy = tied_rows(batch * g.out().size(), 3);
  const auto loss = [&](const std::vector<float>& in) {
    std::vector<float> y(kd::cpu::storage_size(g.out(), batch));
    std::vector<std::uint8_t> arg(y.size());
    kd::cpu::max_pool2d_forward({1}, g, batch, blocked(g.in(), batch, in).data(), y.data(), arg.data());
    const auto rows = unblocked(g.out(), batch, y);
    double sum = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) sum += static_cast<double>(rows[i]) * static_cast<double>(dy[i]);
    return sum;
  };
  std::vector<float> y(kd::cpu::storage_size(g.out(), batch)), dx(kd::cpu::storage_size(g.in(), batch));
  std::vector<std::uint8_t> arg(y.size());
  kd::cpu::max_pool2d_forward({1}, g, batch, blocked(g.in(), batch, x).data(), y.data(), arg.data());
  kd::cpu::max_pool2d_backward({1}, g, batch, blocked(g.out(), batch, dy).data(), arg.data(), dx.data());
  const auto got = unblocked(g.in(), batch, dx);
  std::vector<double> want(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    auto up = x, down = x;
    up[i] += 0.001f;
    down[i] -= 0.001f;
    want[i] = (loss(up) - loss(down)) / (static_cast<double>(up[i]) - static_cast<double>(down[i]));
  }
  // The step itself is exact; only the float rounding of y, 1e-7 over a step of 2e-3, is left.
  CHECK(kd_test::near(got, want, {.of_largest = 1e-3}));
}

TEST_CASE("max_pool2d: NaN wins, all minus infinity takes the first live tap", "[cpu][pool]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const kd::pool2d_geometry g{1, 4, 4, 3, 2, 1};  // 2 x 2 windows
  std::vector<float> x(16, -infinity);
  x[15] = nan;
  x[10] = infinity;
  std::vector<float> y(kd::cpu::storage_size(g.out(), 1));
  std::vector<std::uint8_t> arg(y.size());
  kd::cpu::max_pool2d_forward({1}, g, 1, blocked(g.in(), 1, x).data(), y.data(), arg.data());
  CHECK(y[0] == -infinity);
  CHECK(arg[0] == 4);  // the centre: row and column 0 of the window are padding
  CHECK(std::isnan(y[3 * lanes]));
  CHECK(arg[3 * lanes] == 8);
}

TEST_CASE("max_pool2d: impossible geometries are refused", "[cpu][pool]") {
  float x[16 * 16];
  std::uint8_t arg[16 * 16];
  const kd::pool2d_geometry bad[] = {
      {1, 4, 4, 0, 1, 0}, {1, 16, 16, 16, 1, 0}, {1, 4, 4, 2, 0, 0}, {1, 4, 4, 2, 2, 2}, {1, 2, 2, 3, 1, 0}};
  for (const auto& g : bad) {
    CHECK_THROWS_AS(kd::cpu::max_pool2d_forward({1}, g, 1, x, x, arg), kd::argument_error);
    CHECK_THROWS_AS(kd::cpu::max_pool2d_backward({1}, g, 1, x, arg, x), kd::argument_error);
  }
}

TEST_CASE("avg_pool2d_global: mean and its gradient match the definition", "[cpu][pool]") {
  const kd::shape shapes[] = {kd::image_shape(512, 1, 1), kd::image_shape(3, 4, 4), kd::image_shape(5, 7, 3)};
  for (const kd::shape& s : shapes)
    for (const std::size_t batch : {1, 15, 17, 33})
      for (const int threads : {1, 2}) {
        CAPTURE(kd::text_of(s), batch, threads);
        const kd::shape row = kd::row_shape(s.channels);
        auto x = tied_rows(batch * s.size(), 4);
        for (float& v : x) v *= 0.3f;
        const auto dy = tied_rows(batch * s.channels, 5);
        std::vector<double> want_y(batch * s.channels), want_dx(batch * s.size());
        for (std::size_t i = 0; i < want_dx.size(); ++i) {
          want_y[i / s.pixels()] += static_cast<double>(x[i]) / static_cast<double>(s.pixels());
          want_dx[i] = static_cast<double>(dy[i / s.pixels()]) / static_cast<double>(s.pixels());
        }
        std::vector<float> y(kd::cpu::storage_size(row, batch), 9.0f), dx(kd::cpu::storage_size(s, batch), 9.0f);
        kd::cpu::avg_pool2d_global_forward({threads}, s, batch, blocked(s, batch, x).data(), y.data());
        kd::cpu::avg_pool2d_global_backward({threads}, s, batch, blocked(row, batch, dy).data(), dx.data());
        // Sums of at most 21 floats.
        CHECK(kd_test::near(unblocked(row, batch, y), want_y, {.of_largest = 1e-6}));
        CHECK(kd_test::near(unblocked(s, batch, dx), want_dx, {.of_largest = 2e-7}));
        CHECK(blocked(s, batch, unblocked(s, batch, dx)) == dx);
      }
}
