#include "kd/cuda/pool.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded_array.hpp"

namespace {

using kd::kernel::bfloat16;
using kd_test::guarded_array;
using kd_test::near;
using kd_test::rounded;
constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

// Multiples of 1/8 in [-1, 1]: many ties, and exact in bfloat16.
std::vector<float> tied_values(std::size_t n, std::uint32_t draw) {
  std::vector<float> v(n);
  for (std::size_t i = 0; i < n; ++i) {
    const auto word = kd::random_at(5, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i), draw)[0];
    v[i] = (static_cast<float>(kd::uniform_below(word, 17)) - 8.0f) / 8.0f;
  }
  return v;
}

struct pooled {
  std::vector<float> y, winners;  // [N][OH][OW][C]
  std::vector<double> dx;         // [N][H][W][C]
};

// PyTorch's loop: the window clipped to the image, > or NaN takes over.
pooled reference(const kd::pool2d_geometry& g, std::size_t batch, const std::vector<float>& x,
                 const std::vector<float>& dy) {
  pooled r;
  r.dx.assign(x.size(), 0.0);
  const auto signed_size = [](std::size_t n) { return static_cast<long>(n); };
  for (std::size_t n = 0; n < batch; ++n)
    for (std::size_t oh = 0; oh < g.out_height(); ++oh)
      for (std::size_t ow = 0; ow < g.out_width(); ++ow)
        for (std::size_t c = 0; c < g.channels; ++c) {
          float best = -infinity;
          long best_tap = -1;
          std::size_t best_at = 0;
          for (std::size_t tap = 0; tap < g.kernel * g.kernel; ++tap) {
            const long h = signed_size(oh * g.stride + tap / g.kernel) - signed_size(g.padding);
            const long w = signed_size(ow * g.stride + tap % g.kernel) - signed_size(g.padding);
            if (h < 0 || w < 0 || h >= signed_size(g.in_height) || w >= signed_size(g.in_width)) continue;
            const std::size_t at =
                ((n * g.in_height + static_cast<std::size_t>(h)) * g.in_width + static_cast<std::size_t>(w)) *
                    g.channels +
                c;
            if (best_tap < 0 || x[at] > best || std::isnan(x[at])) {
              best = x[at];
              best_tap = signed_size(tap);
              best_at = at;
            }
          }
          r.dx[best_at] += static_cast<double>(dy[r.y.size()]);
          r.y.push_back(best);
          r.winners.push_back(static_cast<float>(best_tap));
        }
  return r;
}

// What kd computes; NaN compares unequal, so -1e30 stands for it in y.
template <class T>
struct result {
  std::vector<float> y, winners, dx;
  bool intact;

  result(const kd::pool2d_geometry& g, std::size_t batch, const std::vector<float>& values,
         const std::vector<float>& gradient, std::size_t shift = 0) {
    const kd::cuda::stream s;
    guarded_array<T> x(s, values, shift), out(s, batch * g.out().size(), shift), dy(s, gradient, shift),
        d_x(s, values.size(), shift);
    guarded_array<std::uint8_t> taken(s, batch * g.out().size(), shift);
    kd::cuda::max_pool2d_forward<T>(s, g, batch, x.data(), out.data(), taken.data());
    kd::cuda::max_pool2d_backward<T>(s, g, batch, dy.data(), taken.data(), d_x.data());
    y = out.floats();
    for (float& v : y) v = std::isnan(v) ? -1e30f : v;
    winners = taken.floats();
    dx = d_x.floats();
    intact = x.intact() && out.intact() && dy.intact() && d_x.intact() && taken.intact();
  }
};

// Channels, height, width, kernel, stride, padding. The first is ResNet's pool.
const kd::pool2d_geometry geometries[] = {
    {8, 16, 16, 3, 2, 1}, {3, 8, 8, 2, 2, 0},  {2, 7, 9, 3, 2, 1},  {4, 7, 9, 3, 2, 1},    {1, 5, 5, 3, 1, 1},
    {17, 6, 7, 2, 2, 0},  {20, 6, 7, 2, 2, 0}, {2, 3, 3, 3, 3, 0},  {1, 1, 1, 2, 2, 1},    {4, 9, 8, 2, 3, 0},
    {4, 5, 6, 2, 1, 1},   {4, 8, 8, 3, 1, 1},  {5, 4, 4, 1, 1, 0},  {1, 16, 16, 15, 1, 7}, {4, 9, 11, 7, 2, 3},
    {2, 9, 11, 7, 1, 0},  {4, 7, 7, 7, 7, 0},  {4, 10, 9, 5, 3, 2}, {300, 2, 3, 2, 1, 0}};

}  // namespace

TEMPLATE_TEST_CASE("cuda max_pool2d: value, tap and gradient match the definition", "[cuda][pool]", float, bfloat16) {
  for (const auto& g : geometries)
    for (const std::size_t batch : {1, 2, 5}) {
      CAPTURE(g.channels, g.in_height, g.in_width, g.kernel, g.stride, g.padding, batch);
      const auto x = tied_values(batch * g.in().size(), 1), dy = tied_values(batch * g.out().size(), 2);
      const pooled want = reference(g, batch, x, dy);
      const result<TestType> got(g, batch, x, dy);
      CHECK(got.intact);
      CHECK(got.y == want.y);
      CHECK(got.winners == want.winners);
      // Sums of multiples of 1/8: exact in float; 225 of them may need a rounding to bfloat16.
      if (std::is_same_v<TestType, float> || g.kernel <= 3)
        CHECK(near(got.dx, want.dx, {}));
      else
        CHECK(near(got.dx, want.dx, {.of_largest = 0x1p-8}));
    }
}

TEST_CASE("cuda max_pool2d: arrays that are not aligned to vectors", "[cuda][pool]") {
  for (const std::size_t shift : {1, 2, 3}) {
    const kd::pool2d_geometry g{8, 6, 6, 3, 2, 1};
    const auto x = tied_values(3 * g.in().size(), 1), dy = tied_values(3 * g.out().size(), 2);
    const pooled want = reference(g, 3, x, dy);
    const result<float> got(g, 3, x, dy, shift);
    CHECK(got.intact);
    CHECK(got.y == want.y);
    CHECK(got.winners == want.winners);
    CHECK(near(got.dx, want.dx, {}));
    const result<bfloat16> half(g, 3, x, dy, shift);
    CHECK(half.intact);
    CHECK(half.winners == want.winners);
    CHECK(near(half.dx, want.dx, {}));
  }
}

TEST_CASE("cuda max_pool2d: gradient matches numerical differences", "[cuda][pool]") {
  const kd::pool2d_geometry g{4, 6, 5, 3, 2, 1};
  const std::size_t batch = 2;
  std::vector<float> x(batch * g.in().size());
  // All values distinct and 0.01 apart, so that a step of 0.001 moves no maximum.
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>((i * 37) % x.size()) * 0.01f;
  const auto dy = tied_values(batch * g.out().size(), 3);
  const auto loss = [&](const std::vector<float>& in) {
    const auto y = reference(g, batch, in, dy).y;
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += static_cast<double>(y[i]) * static_cast<double>(dy[i]);
    return sum;
  };
  std::vector<double> want(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    auto up = x, down = x;
    up[i] += 0.001f;
    down[i] -= 0.001f;
    want[i] = (loss(up) - loss(down)) / (static_cast<double>(up[i]) - static_cast<double>(down[i]));
  }
  // The step itself is exact; only the rounding of the double sum is left.
  CHECK(near(result<float>(g, batch, x, dy).dx, want, {.of_largest = 1e-9}));
}

TEMPLATE_TEST_CASE("cuda max_pool2d: the last NaN wins, all minus infinity takes the first live tap", "[cuda][pool]",
                   float, bfloat16) {
  for (const std::size_t channels : {1, 4})
    for (const std::size_t kernel : {2, 3, 5}) {
      const kd::pool2d_geometry g{channels, 8, 8, kernel, 2, kernel / 2};
      std::vector<float> x(g.in().size(), -infinity);
      const auto put = [&](std::size_t h, std::size_t w, float value) {
        for (std::size_t c = 0; c < channels; ++c) x[(h * 8 + w) * channels + c] = value;
      };
      put(4, 4, not_a_number);
      put(4, 5, infinity);
      put(5, 4, not_a_number);
      put(7, 7, -1.0f);
      const auto dy = tied_values(g.out().size(), 4);
      pooled want = reference(g, 1, x, dy);
      for (float& v : want.y) v = std::isnan(v) ? -1e30f : v;
      const result<TestType> got(g, 1, x, dy);
      CAPTURE(channels, kernel);
      CHECK(got.intact);
      CHECK(got.y == want.y);
      CHECK(got.winners == want.winners);
      CHECK(near(got.dx, want.dx, {}));
      // Row and column kernel / 2 of the first window are the image's corner.
      CHECK(got.winners[0] == static_cast<float>(kernel / 2 * kernel + kernel / 2));
      CHECK(got.y[0] == -infinity);
    }
}

TEST_CASE("cuda max_pool2d: an empty batch does nothing, a stride beyond the image takes one window", "[cuda][pool]") {
  const kd::pool2d_geometry g{4, 6, 6, 3, 2, 1};
  CHECK(result<float>(g, 0, {}, {}).intact);
  const kd::pool2d_geometry far{4, 6, 6, 3, std::size_t{1} << 32, 1};
  const auto x = tied_values(far.in().size(), 1), dy = tied_values(far.out().size(), 2);
  const pooled want = reference(far, 1, x, dy);
  const result<float> got(far, 1, x, dy);
  CHECK(got.y == want.y);
  CHECK(near(got.dx, want.dx, {}));
}

TEST_CASE("cuda max_pool2d: impossible geometries are refused", "[cuda][pool]") {
  const kd::cuda::stream s;
  float x[1];
  std::uint8_t winners[1];
  const kd::pool2d_geometry bad[] = {{1, 4, 4, 0, 1, 0}, {1, 16, 16, 16, 1, 0}, {1, 4, 4, 2, 0, 0},
                                     {1, 4, 4, 2, 2, 2}, {1, 2, 2, 3, 1, 0},    {1u << 20, 64, 64, 2, 2, 0}};
  for (const auto& g : bad) {
    CHECK_THROWS_AS(kd::cuda::max_pool2d_forward(s, g, 1, x, x, winners), kd::argument_error);
    CHECK_THROWS_AS(kd::cuda::max_pool2d_backward(s, g, 1, x, winners, x), kd::argument_error);
  }
}

TEMPLATE_TEST_CASE("cuda global_avg_pool2d: mean and its gradient match the definition", "[cuda][pool]", float,
                   bfloat16) {
  const kd::cuda::stream stream;
  const kd::shape shapes[] = {kd::image_shape(512, 1, 1), kd::image_shape(3, 4, 4),   kd::image_shape(5, 7, 3),
                              kd::image_shape(8, 7, 7),   kd::image_shape(33, 4, 5),  kd::image_shape(1, 1, 1),
                              kd::image_shape(4, 24, 23), kd::image_shape(36, 11, 3), kd::image_shape(0, 2, 2)};
  for (const kd::shape& s : shapes)
    for (const std::size_t batch : {0, 1, 2, 5, 17})
      for (const std::size_t shift : {0, 1}) {
        CAPTURE(kd::text_of(s), batch, shift);
        auto values = tied_values(batch * s.size(), 4);
        for (float& v : values) v *= 0.3f;
        values = rounded<TestType>(values);
        const auto gradient = tied_values(batch * s.channels, 5);
        std::vector<double> want_y(batch * s.channels), want_dx(batch * s.size());
        for (std::size_t i = 0; i < want_dx.size(); ++i) {
          const std::size_t row = i / s.size() * s.channels + i % s.channels;
          want_y[row] += static_cast<double>(values[i]) / static_cast<double>(s.pixels());
          want_dx[i] = static_cast<double>(gradient[row]) / static_cast<double>(s.pixels());
        }
        guarded_array<TestType> x(stream, values, shift), y(stream, want_y.size(), shift), dy(stream, gradient, shift),
            dx(stream, want_dx.size(), shift);
        kd::cuda::global_avg_pool2d_forward<TestType>(stream, s, batch, x.data(), y.data());
        kd::cuda::global_avg_pool2d_backward<TestType>(stream, s, batch, dy.data(), dx.data());
        // Sums of at most 21 values per lane in float, then a rounding to bfloat16.
        const double storage = std::is_same_v<TestType, float> ? 0.0 : 0x1.1p-8;
        CHECK(near(y.floats(), want_y, {.of_largest = 1e-6 + storage}).or_nothing());
        CHECK(near(dx.floats(), want_dx, {.of_largest = 1e-7 + storage}).or_nothing());
        CHECK((x.intact() && y.intact() && dy.intact() && dx.intact()));
      }
}

TEST_CASE("cuda global_avg_pool2d: NaN spreads through its channel alone, twice the same bits", "[cuda][pool]") {
  const kd::cuda::stream stream;
  const kd::shape s = kd::image_shape(4, 8, 8);
  auto values = tied_values(2 * s.size(), 6);
  for (float& v : values) v *= 0.3f;
  values[5 * 4 + 2] = not_a_number;
  guarded_array<float> x(stream, values), y(stream, 8), again(stream, 8);
  kd::cuda::global_avg_pool2d_forward<float>(stream, s, 2, x.data(), y.data());
  kd::cuda::global_avg_pool2d_forward<float>(stream, s, 2, x.data(), again.data());
  const auto first = y.floats(), second = again.floats();
  for (std::size_t i = 0; i < 8; ++i) {
    CHECK(std::isnan(first[i]) == (i == 2));
    CHECK((first[i] == second[i] || i == 2));
  }
}

TEST_CASE("cuda global_avg_pool2d: samples beyond 32 bits are refused", "[cuda][pool]") {
  const kd::cuda::stream s;
  float x[1];
  const kd::shape huge = kd::image_shape(1u << 20, 64, 64);
  CHECK_THROWS_AS(kd::cuda::global_avg_pool2d_forward(s, huge, 1, x, x), kd::argument_error);
  CHECK_THROWS_AS(kd::cuda::global_avg_pool2d_backward(s, huge, 1, x, x), kd::argument_error);
}
