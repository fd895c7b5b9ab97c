/// Convolutions of the CPU device against their float64 definition.
#include "kd/cpu/conv2d.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "cpu/conv2d_reference.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"

namespace {

using kd::conv2d_geometry;
using kd::cpu::lanes;
using kd::cpu::parallel;
using kd_test::aligned_floats;

// 1x1; students' 3x3; strides on 4, 2 and 1 pixels; the stem; rectangles; linear layers.
const std::vector<conv2d_geometry> geometries{
    {1, 1, 1, 1},
    {3, 5, 4, 8, 3, 3, 1, 1, 1, 1},
    {8, 4, 4, 8, 3, 3, 1, 1, 1, 1},
    {16, 4, 4, 17, 3, 3, 1, 1, 1, 1},
    {17, 4, 4, 16, 3, 3, 2, 2, 1, 1},
    {16, 2, 2, 24, 3, 3, 2, 2, 1, 1},
    {32, 1, 1, 16, 3, 3, 1, 1, 1, 1},
    {32, 1, 1, 16, 3, 3, 2, 2, 1, 1},
    {3, 9, 9, 20, 7, 7, 2, 2, 3, 3},
    {16, 4, 4, 32, 1, 1, 2, 2},
    {5, 3, 7, 6, 2, 4, 1, 3, 1, 2},
    {16, 3, 5, 5, 3, 2, 2, 1, 0, 1},
    {2, 2, 2, 3, 5, 5, 3, 3, 4, 4},
    {80, 1, 1, 10},
    {64, 2, 2, 64, 3, 3, 1, 1, 1, 1},
    {272, 1, 1, 48},
};
const std::vector<std::size_t> batches{1, 15, 17, 80, 128};

/// Sums of K products of numbers below 1 in fp32 against float64: K * 2^-24 at worst, here relative to the largest.
constexpr double tolerance = 2e-6;

/// What all passes make of a problem.
template <std::size_t Width>
struct passes {
  aligned_floats y, y_relu, dx, dx_added, dw, db;

  passes(const kd_test::conv2d_problem& p, int threads)
      : y(p.dy.size(), -7),
        y_relu(p.dy.size(), -7),
        dx(p.dx.size(), -7),
        dx_added(p.dx),
        dw(p.weight.size(), -7),
        db(p.bias.size(), -7) {
    const parallel team{threads};
    aligned_floats scratch(kd::cpu::conv2d_scratch(p.g, p.batch), std::numeric_limits<float>::quiet_NaN());
    kd::cpu::conv2d_forward<Width>(team, p.g, p.batch, p.x.data(), p.weight.data(), {}, y.data());
    kd::cpu::conv2d_forward<Width>(team, p.g, p.batch, p.x.data(), p.weight.data(), {p.bias.data(), true},
                                   y_relu.data());
    kd::cpu::conv2d_backward_data<Width>(team, p.g, p.batch, p.dy.data(), p.weight.data(), false, dx.data(),
                                         scratch.data());
    kd::cpu::conv2d_backward_data<Width>(team, p.g, p.batch, p.dy.data(), p.weight.data(), true, dx_added.data(),
                                         scratch.data());
    std::fill(scratch.begin(), scratch.end(), std::numeric_limits<float>::quiet_NaN());
    kd::cpu::conv2d_backward_weight<Width>(team, p.g, p.batch, p.x.data(), p.dy.data(), dw.data(), db.data(),
                                           scratch.data());
  }
};

template <std::size_t Width>
void check(const conv2d_geometry& g, std::size_t batch, int threads) {
  INFO("width " << Width << ", batch " << batch << ", threads " << threads << ", in " << kd::text_of(g.in()) << ", out "
                << kd::text_of(g.out()) << ", kernel " << g.kernel_h << "x" << g.kernel_w << ", stride " << g.stride_h);
  const kd_test::conv2d_problem p(g, batch);
  const std::vector<double> y = kd_test::convolved(p);
  std::vector<double> y_relu(y);
  for (std::size_t i = 0; i < y.size(); ++i)
    y_relu[i] = std::max(y[i] + static_cast<double>(p.bias[i / lanes % g.out_channels]), 0.0);
  const kd_test::conv2d_gradients want(p, p.dy);
  const passes<Width> got(p, threads);
  CHECK(kd_test::near(p.samples(got.y), p.samples(y), {.of_largest = tolerance}));
  CHECK(kd_test::near(p.samples(got.y_relu), p.samples(y_relu), {.of_largest = tolerance}));
  CHECK(kd_test::near(got.dx, want.dx, {.of_largest = tolerance}));
  CHECK(p.zero_beyond(got.dx));
  CHECK(kd_test::near(got.dx_added, want.dx_added, {.of_largest = tolerance}));
  CHECK(p.zero_beyond(got.dx_added));
  CHECK(kd_test::near(got.dw, want.dw, {.of_largest = tolerance}));
  CHECK(kd_test::near(got.db, want.db, {.of_largest = tolerance}));
  bool dead_taps_are_zero = true;
  for (std::size_t i = 0; i < want.dw.size(); ++i)
    if (want.dw[i] == 0 && got.dw[i] != 0) dead_taps_are_zero = false;
  CHECK(dead_taps_are_zero);
}

bool equal(const aligned_floats& a, const aligned_floats& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

/// Whether a geometry is small enough for every batch and every width.
bool small(const conv2d_geometry& g) { return g.weights() * g.out().pixels() < 13000; }

}  // namespace

TEST_CASE("conv2d: forward and gradients match the float64 definition", "[cpu][conv2d]") {
  for (const conv2d_geometry& g : geometries)
    for (const std::size_t batch : {1, 15, 16, 17, 80, 128})
      if (small(g) || batch == 17) check<kd::cpu::native_width>(g, batch, 1);
}

TEST_CASE("conv2d: every vector width matches the float64 definition", "[cpu][conv2d]") {
  for (const conv2d_geometry& g : geometries) {
    if (!small(g)) continue;
    check<16>(g, 19, 1);
    check<8>(g, 19, 1);
    check<4>(g, 19, 1);
    check<1>(g, 19, 1);
  }
}

TEST_CASE("conv2d: results are bit-equal for any number of threads", "[cpu][conv2d]") {
  for (const conv2d_geometry& g : geometries)
    for (const std::size_t batch : {37}) {
      INFO("batch " << batch << ", in " << kd::text_of(g.in()) << ", out " << kd::text_of(g.out()));
      const kd_test::conv2d_problem p(g, batch);
      const passes<kd::cpu::native_width> one(p, 1);
      for (const int threads : {2, 3}) {
        const passes<kd::cpu::native_width> more(p, threads);
        CHECK(equal(one.y, more.y));
        CHECK(equal(one.y_relu, more.y_relu));
        CHECK(equal(one.dx, more.dx));
        CHECK(equal(one.dx_added, more.dx_added));
        CHECK(equal(one.dw, more.dw));
        CHECK(equal(one.db, more.db));
      }
    }
}

TEST_CASE("conv2d: dead taps can be left as they are", "[cpu][conv2d]") {
  const conv2d_geometry g{16, 1, 1, 16, 3, 3, 1, 1, 1, 1};
  const kd_test::conv2d_problem p(g, 16);
  aligned_floats dw(g.weights(), -7), scratch(kd::cpu::conv2d_scratch(g, 16));
  kd::cpu::conv2d_backward_weight({1}, g, 16, p.x.data(), p.dy.data(), dw.data(), nullptr, scratch.data(), false);
  for (std::size_t i = 0; i < dw.size(); ++i) {
    const bool centre = i / g.in_channels % 9 == 4;
    CHECK((dw[i] == -7) == !centre);
  }
}
