/// Convolution + bias + relu + 2x2 max pool in one pass, against the composition of plain operations.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cpu/conv2d_reference.hpp"
#include "kd/cpu/conv2d.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"

namespace {

using kd::conv2d_geometry;
using kd::cpu::lanes;
using kd::cpu::parallel;
using kd_test::aligned_floats;

/// y, arg and the gradient of the convolution's output, from the convolution itself.
struct composition {
  aligned_floats convolved, pooled;
  std::vector<std::uint8_t> arg;

  template <class Problem>
  composition(const Problem& p, const parallel& threads)
      : convolved(p.dy.size()), pooled(p.dy.size() / p.g.out().pixels() * pooled_pixels(p.g)), arg(pooled.size()) {
    const conv2d_geometry& g = p.g;
    kd::cpu::conv2d_forward(threads, g, p.batch, p.x.data(), p.weight.data(), {p.bias.data(), true}, convolved.data());
    for_each_window(g, pooled.size(), [&](std::size_t out, const std::size_t(&in)[4]) {
      std::size_t best = 0;
      for (std::size_t q = 1; q < 4; ++q)
        if (convolved[in[q]] > convolved[in[best]]) best = q;
      pooled[out] = convolved[in[best]];
      arg[out] = pooled[out] > 0 ? static_cast<std::uint8_t>(best) : 4;
    });
  }
  static std::size_t pooled_pixels(const conv2d_geometry& g) { return (g.out_height() / 2) * (g.out_width() / 2); }

  template <class Body>
  static void for_each_window(const conv2d_geometry& g, std::size_t size, const Body& body) {
    const std::size_t inner = g.out_channels * lanes, width = g.out_width() / 2, height = g.out_height() / 2;
    for (std::size_t i = 0; i < size; ++i) {
      const std::size_t place = i / inner, w = place % width, h = place / width % height, b = place / width / height;
      std::size_t in[4];
      for (std::size_t q = 0; q < 4; ++q)
        in[q] = ((b * g.out_height() + 2 * h + q / 2) * g.out_width() + 2 * w + q % 2) * inner + i % inner;
      body(i, in);
    }
  }
  aligned_floats unpooled(const conv2d_geometry& g, const aligned_floats& dp) const {
    aligned_floats dy(convolved.size());
    for_each_window(g, dp.size(), [&](std::size_t out, const std::size_t(&in)[4]) {
      if (arg[out] < 4) dy[in[arg[out]]] = dp[out];
    });
    return dy;
  }
};

// The students' two, an odd size, wide and tall kernels, strides, no padding, more taps than fit in registers.
const std::vector<conv2d_geometry> geometries{
    {3, 8, 8, 16, 3, 3, 1, 1, 1, 1},
    {16, 4, 4, 17, 3, 3, 1, 1, 1, 1},
    {8, 4, 4, 8, 3, 3, 1, 1, 1, 1},
    {3, 7, 9, 5, 3, 3, 1, 1, 1, 1},
    {2, 12, 7, 3, 5, 2, 2, 1, 2, 0},
    {17, 4, 4, 2, 4, 5, 1, 2, 2, 3},
    {1, 2, 2, 1},
    {16, 2, 2, 33, 3, 3, 1, 1, 1, 1},
    {3, 2, 40, 4, 3, 3, 1, 1, 1, 1},
};

/// As in conv2d_test: K * 2^-24 at worst, relative to the largest.
constexpr double tolerance = 2e-6;

template <std::size_t Width>
void check(const conv2d_geometry& g, std::size_t batch, int threads) {
  INFO("width " << Width << ", batch " << batch << ", threads " << threads << ", in " << kd::text_of(g.in()) << ", out "
                << kd::text_of(g.out()) << ", kernel " << g.kernel_h << "x" << g.kernel_w);
  const kd_test::conv2d_problem p(g, batch);
  const parallel team{threads};
  const composition want(p, team);
  aligned_floats got(want.pooled.size(), -7);
  std::vector<std::uint8_t> arg(got.size(), 77);
  kd::cpu::conv2d_relu_pool_forward<Width>(team, g, batch, p.x.data(), p.weight.data(), p.bias.data(), got.data(),
                                           arg.data());
  CHECK(kd_test::near(p.samples(got), p.samples(want.pooled), {.of_largest = tolerance}));
  CHECK(arg == want.arg);

  aligned_floats dp = kd_test::noisy(6, got.size());
  p.clear_beyond(dp);
  const aligned_floats dy = want.unpooled(g, dp);
  const kd_test::conv2d_gradients gradients(p, dy);
  aligned_floats dx(p.dx.size(), -7), added = p.dx, dw(g.weights(), -7), db(g.out_channels, -7);
  aligned_floats scratch(kd::cpu::conv2d_scratch(g, batch), std::numeric_limits<float>::quiet_NaN());
  kd::cpu::conv2d_relu_pool_backward_data<Width>(team, g, batch, dp.data(), want.arg.data(), p.weight.data(), false,
                                                 dx.data(), scratch.data());
  CHECK(kd_test::near(dx, gradients.dx, {.of_largest = tolerance}));
  CHECK(p.zero_beyond(dx));
  kd::cpu::conv2d_relu_pool_backward_data<Width>(team, g, batch, dp.data(), want.arg.data(), p.weight.data(), true,
                                                 added.data(), scratch.data());
  CHECK(kd_test::near(added, gradients.dx_added, {.of_largest = tolerance}));

  std::fill(scratch.begin(), scratch.end(), std::numeric_limits<float>::quiet_NaN());
  kd::cpu::conv2d_relu_pool_backward_weight<Width>(team, g, batch, p.x.data(), dp.data(), want.arg.data(), dw.data(),
                                                   db.data(), scratch.data());
  CHECK(kd_test::near(dw, gradients.dw, {.of_largest = tolerance}));
  CHECK(kd_test::near(db, gradients.db, {.of_largest = tolerance}));
}

}  // namespace

TEST_CASE("conv2d_relu_pool: forward and gradients match the composition", "[cpu][conv2d]") {
  for (const conv2d_geometry& g : geometries)
    for (const std::size_t batch : {1, 16, 80}) check<kd::cpu::native_width>(g, batch, batch == 80 ? 2 : 1);
}

TEST_CASE("conv2d_relu_pool: every vector width computes the same", "[cpu][conv2d]") {
  for (const conv2d_geometry& g : geometries) {
    check<16>(g, 19, 1);
    check<8>(g, 19, 1);
    check<4>(g, 19, 1);
    check<1>(g, 19, 1);
  }
}

TEST_CASE("conv2d_relu_pool: results are bit-equal for any number of threads", "[cpu][conv2d]") {
  for (const conv2d_geometry& g : {geometries[0], geometries[1]}) {  // large enough for threads to be woken
    const kd_test::conv2d_problem p(g, 80);
    const std::size_t pooled = p.dy.size() / g.out().pixels() * composition::pooled_pixels(g);
    const aligned_floats dp = kd_test::noisy(6, pooled);
    std::vector<float> one;
    for (const int threads : {1, 2, 3}) {
      std::vector<std::uint8_t> arg(pooled);
      aligned_floats y(pooled), dx(p.dx.size()), dw(g.weights()), db(g.out_channels);
      aligned_floats scratch(kd::cpu::conv2d_scratch(g, 80));
      kd::cpu::conv2d_relu_pool_forward({threads}, g, 80, p.x.data(), p.weight.data(), p.bias.data(), y.data(),
                                        arg.data());
      kd::cpu::conv2d_relu_pool_backward_data({threads}, g, 80, dp.data(), arg.data(), p.weight.data(), false,
                                              dx.data(), scratch.data());
      kd::cpu::conv2d_relu_pool_backward_weight({threads}, g, 80, p.x.data(), dp.data(), arg.data(), dw.data(),
                                                db.data(), scratch.data());
      std::vector<float> all(y.begin(), y.end());
      for (const aligned_floats* more : {&dx, &dw, &db}) all.insert(all.end(), more->begin(), more->end());
      all.insert(all.end(), arg.begin(), arg.end());
      if (threads == 1) one = all;
      CHECK(all == one);
    }
  }
}

TEST_CASE("conv2d_relu_pool: the first of equal maxima wins, zero and below have no winner, NaN stays",
          "[cpu][conv2d]") {
  const conv2d_geometry g{1, 2, 2, 1};
  const float one = 1, nan = std::numeric_limits<float>::quiet_NaN();
  struct example {
    float x[4];
    float y;
    int arg;
  };
  const example examples[]{{{1, 2, 2, 1}, 2, 1},    {{3, 3, 3, 3}, 3, 0},     {{0, 0, 0, 0}, 0, 4},
                           {{-1, -2, -3, 0}, 0, 4}, {{1, nan, 5, 2}, nan, 1}, {{nan, 1, 2, 3}, nan, 0},
                           {{-1, -2, -3, 7}, 7, 3}};
  for (const example& e : examples) {
    aligned_floats x(4 * lanes), y(lanes, -7);
    std::uint8_t arg[lanes];
    for (std::size_t i = 0; i < 4; ++i) x[i * lanes + 5] = e.x[i];
    kd::cpu::conv2d_relu_pool_forward({1}, g, 16, x.data(), &one, nullptr, y.data(), arg);
    CHECK((y[5] == e.y || (std::isnan(y[5]) && std::isnan(e.y))));
    CHECK(int{arg[5]} == e.arg);
  }
}
