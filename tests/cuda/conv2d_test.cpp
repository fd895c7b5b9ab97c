/// Convolutions of the geometries that no direct kernel takes, against their float64 definition: by cuDNN, and as plain
/// products. Under the emulation kd's wrappers run on stand-ins of the libraries' C interfaces, which check descriptors
/// and offer algorithms that must not be taken.
#include "kd/cuda/conv2d.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <type_traits>
#include <vector>

#include "kd/cuda/graph.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded_array.hpp"
#include "support/message.hpp"

namespace {

using kd::conv2d_geometry;
using kd::precision;
using kd::cuda::cudnn;
using kd::cuda::stream;
using kd::kernel::bfloat16;
using kd_test::guarded_array;
using kd_test::near;
using kd_test::normal_values;
using kd_test::rounded;
using floats = guarded_array<float>;
using bytes = guarded_array<std::uint8_t>;

/// Plain products: the centre of a 3x3 on one pixel; one row of taps; whole rows; one pixel of a 1x1 with stride 2; two
/// runs of taps; three, with pixels that no tap meets.
const std::vector<conv2d_geometry> by_products{
    {20, 1, 1, 24, 3, 3, 1, 1, 1, 1}, {20, 1, 1, 24, 3, 3, 2, 2, 1, 1}, {7, 1, 3, 5, 3, 3, 2, 4, 1, 1},
    {6, 3, 2, 9, 3, 2, 1, 1, 0, 0},   {9, 2, 2, 12, 1, 1, 2, 2},        {5, 1, 1, 3},
    {17, 2, 2, 33, 3, 3, 2, 2, 1, 1}, {10, 4, 4, 7, 3, 3, 2, 2, 0, 0},
};
/// The stem; stages with stride 2; a downsampling; 64 channels; rectangles.
const std::vector<conv2d_geometry> by_cudnn{
    {3, 11, 9, 20, 7, 7, 2, 2, 3, 3}, {20, 5, 4, 36, 3, 3, 2, 2, 1, 1}, {20, 5, 4, 24, 1, 1, 2, 2},
    {64, 3, 3, 64, 3, 3, 1, 1, 1, 1}, {5, 3, 7, 6, 2, 4, 1, 3, 1, 2},   {2, 2, 2, 3, 5, 5, 3, 3, 4, 4},
    {40, 2, 2, 34, 3, 3, 1, 1, 1, 1},
};

/// Sums of K products in float: K * 2^-24 at worst, K at most 1,000 here, of terms that cancel. bfloat16 rounds weights
/// (in the reference too) and every result, to 2^-9 of its size; pooled results twice, accumulated ones with their sum.
template <class T>
constexpr double tolerance = std::is_same_v<T, float> ? 5e-6 : 8e-3;

template <class T>
struct problem {
  conv2d_geometry g;
  std::size_t batch;
  std::vector<float> x, w, bias, dy, dx_before, d_pooled, winners;

  problem(const conv2d_geometry& geometry, std::size_t n)
      : g(geometry),
        batch(n),
        x(rounded<T>(normal_values(n * g.in().size(), 1))),
        w(normal_values(g.weights(), 2)),
        bias(normal_values(g.out_channels, 3)),
        dy(rounded<T>(normal_values(n * g.out().size(), 4))),
        dx_before(rounded<T>(normal_values(n * g.in().size(), 5))),
        d_pooled(rounded<T>(normal_values(pooled(), 6))) {
    for (std::size_t i = 0; i < d_pooled.size(); ++i)
      winners.push_back(static_cast<float>(
          kd::uniform_below(kd::random_at(8, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i))[0], 5)));
  }

  std::size_t pooled() const { return batch * (g.out_height() / 2) * (g.out_width() / 2) * g.out_channels; }
  bool pools() const { return g.out_height() >= 2 && g.out_width() >= 2; }

  /// Calls body(place in y, place in w, place in x) for every product of the convolution.
  template <class Body>
  void for_each_product(const Body& body) const {
    const auto height = static_cast<std::ptrdiff_t>(g.in_height), width = static_cast<std::ptrdiff_t>(g.in_width);
    for (std::size_t n = 0; n < batch; ++n)
      for (std::size_t oh = 0; oh < g.out_height(); ++oh)
        for (std::size_t ow = 0; ow < g.out_width(); ++ow)
          for (std::size_t kh = 0; kh < g.kernel_h; ++kh)
            for (std::size_t kw = 0; kw < g.kernel_w; ++kw) {
              const auto ih =
                  static_cast<std::ptrdiff_t>(oh * g.stride_h + kh) - static_cast<std::ptrdiff_t>(g.padding_h);
              const auto iw =
                  static_cast<std::ptrdiff_t>(ow * g.stride_w + kw) - static_cast<std::ptrdiff_t>(g.padding_w);
              if (ih < 0 || ih >= height || iw < 0 || iw >= width) continue;
              const std::size_t in =
                  (n * g.in_height + static_cast<std::size_t>(ih)) * g.in_width + static_cast<std::size_t>(iw);
              for (std::size_t co = 0; co < g.out_channels; ++co)
                for (std::size_t ci = 0; ci < g.in_channels; ++ci)
                  body(((n * g.out_height() + oh) * g.out_width() + ow) * g.out_channels + co,
                       ((co * g.kernel_h + kh) * g.kernel_w + kw) * g.in_channels + ci, in * g.in_channels + ci);
            }
  }
  std::vector<double> y(bool with_bias, bool relu) const {
    const auto weights = rounded<T>(w);
    std::vector<double> all(dy.size());
    for_each_product(
        [&](std::size_t out, std::size_t tap, std::size_t in) { all[out] += double{x[in]} * double{weights[tap]}; });
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (with_bias) all[i] += double{bias[i % g.out_channels]};
      if (relu) all[i] = std::max(all[i], 0.0);
    }
    return all;
  }
  std::vector<double> dx(const std::vector<float>& d_y, bool accumulate) const {
    const auto weights = rounded<T>(w);
    std::vector<double> all(x.size());
    if (accumulate) all.assign(dx_before.begin(), dx_before.end());
    for_each_product(
        [&](std::size_t out, std::size_t tap, std::size_t in) { all[in] += double{d_y[out]} * double{weights[tap]}; });
    return all;
  }
  std::vector<double> dw(const std::vector<float>& d_y) const {
    std::vector<double> all(w.size());
    for_each_product(
        [&](std::size_t out, std::size_t tap, std::size_t in) { all[tap] += double{d_y[out]} * double{x[in]}; });
    return all;
  }
  std::vector<double> db(const std::vector<float>& d_y) const {
    std::vector<double> all(g.out_channels);
    for (std::size_t i = 0; i < d_y.size(); ++i) all[i % g.out_channels] += double{d_y[i]};
    return all;
  }
  std::vector<bool> dead() const {
    std::vector<bool> all(w.size(), true);
    for_each_product([&](std::size_t, std::size_t tap, std::size_t) { all[tap] = false; });
    return all;
  }
  /// Place in y of position q of the window of pooled value i.
  std::size_t in_window(std::size_t i, std::size_t q) const {
    const std::size_t across = g.out_width() / 2, down = g.out_height() / 2, pixel = i / g.out_channels;
    const std::size_t oh = pixel / across % down * 2 + q / 2, ow = pixel % across * 2 + q % 2;
    return ((pixel / across / down * g.out_height() + oh) * g.out_width() + ow) * g.out_channels + i % g.out_channels;
  }
  std::vector<float> unpooled() const {
    std::vector<float> all(dy.size());
    for (std::size_t i = 0; i < d_pooled.size(); ++i)
      if (winners[i] < 4) all[in_window(i, static_cast<std::size_t>(winners[i]))] = d_pooled[i];
    return all;
  }
};

std::string describe(const conv2d_geometry& g, std::size_t batch) {
  return kd::text(kd::text_of(g.in()), " to ", kd::text_of(g.out()), ", kernel ", g.kernel_h, "x", g.kernel_w,
                  ", batch ", batch);
}

bool zero_where(const std::vector<float>& values, const std::vector<bool>& dead) {
  for (std::size_t i = 0; i < values.size(); ++i)
    if (dead[i] && values[i] != 0) return false;
  return true;
}

template <class T>
void check_plain(const stream& s, cudnn& library, const problem<T>& p) {
  const conv2d_geometry& g = p.g;
  guarded_array<T> x(s, p.x), dy(s, p.dy);
  floats w(s, p.w), bias(s, p.bias);
  for (const bool with_bias : {false, true})
    for (const bool relu : {false, true}) {
      guarded_array<T> y(s, p.dy.size());
      kd::cuda::conv2d_forward(s, library, g, p.batch, x.data(), w.data(), with_bias ? bias.data() : nullptr, relu,
                               y.data());
      CHECK(near(y.floats(), p.y(with_bias, relu), {.of_largest = tolerance<T>}));
      CHECK(y.intact());
    }
  guarded_array<T> dx(s, p.x.size()), dx_added(s, p.dx_before);
  kd::cuda::conv2d_backward_data(s, library, g, p.batch, dy.data(), w.data(), false, dx.data(), nullptr);
  kd::cuda::conv2d_backward_data(s, library, g, p.batch, dy.data(), w.data(), true, dx_added.data(), nullptr);
  CHECK(near(dx.floats(), p.dx(p.dy, false), {.of_largest = tolerance<T>}));
  CHECK(near(dx_added.floats(), p.dx(p.dy, true), {.of_largest = tolerance<T>}));
  CHECK((dx.intact() && dx_added.intact()));
  for (const bool with_bias : {false, true}) {
    floats dw(s, p.w.size()), db(s, p.bias.size());
    kd::cuda::conv2d_backward_weight(s, library, g, p.batch, x.data(), dy.data(), dw.data(),
                                     with_bias ? db.data() : nullptr, nullptr);
    CHECK(near(dw.floats(), p.dw(p.dy), {.of_largest = tolerance<T>}));
    CHECK(zero_where(dw.floats(), p.dead()));
    if (with_bias) CHECK(near(db.floats(), p.db(p.dy), {.of_largest = 5e-6}));
    CHECK((dw.intact() && db.intact()));
  }
}

/// Values, and winners whose value is the largest of their window up to rounding.
template <class T>
void check_pool_forward(const stream& s, cudnn& library, const problem<T>& p, bool with_bias) {
  guarded_array<T> x(s, p.x), y(s, p.pooled());
  floats w(s, p.w), bias(s, p.bias);
  bytes winners(s, p.pooled());
  kd::cuda::conv2d_relu_pool_forward(s, library, p.g, p.batch, x.data(), w.data(), with_bias ? bias.data() : nullptr,
                                     y.data(), winners.data());
  const auto sums = p.y(with_bias, false);
  const auto got = y.floats(), places = winners.floats();
  const double scale = kd_test::largest_magnitude(sums);
  std::vector<double> want;
  kd_test::comparison choice("value of the winner");
  std::size_t wrong = 0, lost = 0;
  for (std::size_t i = 0; i < p.pooled(); ++i) {
    double best = 0;
    for (std::size_t q = 0; q < 4; ++q) best = std::max(best, sums[p.in_window(i, q)]);
    want.push_back(best);
    const double won = places[i] == 4  ? 0
                       : places[i] < 4 ? sums[p.in_window(i, static_cast<std::size_t>(places[i]))]
                                       : 1e300;
    choice.add(won, best, 2 * tolerance<T> * scale);
    wrong += (places[i] == 4) != (got[i] == 0);
    lost += places[i] == 4;
  }
  CHECK(choice);
  CHECK(wrong == 0);
  CHECK(lost < p.pooled());
  CHECK(near(got, want, {.of_largest = tolerance<T>}));
  CHECK((y.intact() && winners.intact()));
}

template <class T>
void check_pool(const stream& s, cudnn& library, const problem<T>& p) {
  check_pool_forward(s, library, p, false);
  check_pool_forward(s, library, p, true);
  guarded_array<T> x(s, p.x), d_pooled(s, p.d_pooled), dx(s, p.x.size()), dx_added(s, p.dx_before);
  floats w(s, p.w), dw(s, p.w.size()), db(s, p.bias.size());
  bytes winners(s, p.winners);
  const auto d_y = p.unpooled();
  const auto data = [&](bool accumulate, T* to) {
    kd::cuda::conv2d_relu_pool_backward_data(s, library, p.g, p.batch, d_pooled.data(), winners.data(), w.data(),
                                             accumulate, to, nullptr);
  };
  data(false, dx.data());
  data(true, dx_added.data());
  kd::cuda::conv2d_relu_pool_backward_weight(s, library, p.g, p.batch, x.data(), d_pooled.data(), winners.data(),
                                             dw.data(), db.data(), nullptr);
  CHECK(near(dx.floats(), p.dx(d_y, false), {.of_largest = tolerance<T>}));
  CHECK(near(dx_added.floats(), p.dx(d_y, true), {.of_largest = tolerance<T>}));
  CHECK(near(dw.floats(), p.dw(d_y), {.of_largest = tolerance<T>}));
  CHECK(near(db.floats(), p.db(d_y), {.of_largest = 5e-6}));
  CHECK((dx.intact() && dx_added.intact() && dw.intact() && db.intact()));
}

template <class T>
precision with_images_of() {
  return std::is_same_v<T, float> ? precision::fp32 : precision::bf16;
}

template <class T>
void check_geometries(const std::vector<conv2d_geometry>& all) {
  const stream s;
  cudnn library(s, with_images_of<T>());
  for (const conv2d_geometry& g : all)
    for (const std::size_t batch : {1u, 3u, 5u}) {
      INFO(describe(g, batch));
      REQUIRE_FALSE(kd::cuda::direct_conv2d(g));
      const problem<T> p(g, batch);
      check_plain(s, library, p);
      if (p.pools()) check_pool(s, library, p);
    }
}

}  // namespace

TEST_CASE("cuda conv2d: cuDNN's geometries match the float64 definition, float", "[cuda][conv2d]") {
  for (const conv2d_geometry& g : by_cudnn) CHECK(kd::cuda::tap_runs_of(g).count == 0);
  check_geometries<float>(by_cudnn);
}
TEST_CASE("cuda conv2d: cuDNN's geometries match the float64 definition, bfloat16", "[cuda][conv2d]") {
  check_geometries<bfloat16>(by_cudnn);
}
TEST_CASE("cuda conv2d: plain products match the float64 definition, float", "[cuda][conv2d]") {
  for (const conv2d_geometry& g : by_products) CHECK(kd::cuda::tap_runs_of(g).count > 0);
  CHECK(kd::cuda::tap_runs_of(by_products[3]).count == 1);
  CHECK(kd::cuda::tap_runs_of(by_products[6]).count == 2);
  CHECK(kd::cuda::tap_runs_of(by_products[7]).count == 3);
  check_geometries<float>(by_products);
}
TEST_CASE("cuda conv2d: plain products match the float64 definition, bfloat16", "[cuda][conv2d]") {
  check_geometries<bfloat16>(by_products);
}

TEST_CASE("cuda conv2d: few channels go to the direct kernels", "[cuda][conv2d]") {
  const stream s;
  cudnn library(s, precision::fp32);
  const conv2d_geometry g{3, 4, 4, 8, 3, 3, 1, 1, 1, 1};
  REQUIRE(kd::cuda::direct_conv2d(g));
  const problem<float> p(g, 3);
  floats x(s, p.x), w(s, p.w), bias(s, p.bias), y(s, p.dy.size()), dy(s, p.dy), dw(s, p.w.size()), db(s, p.bias.size()),
      scratch(s, kd::cuda::conv2d_scratch(g, p.batch));
  kd::cuda::conv2d_forward(s, library, g, p.batch, x.data(), w.data(), bias.data(), true, y.data());
  kd::cuda::conv2d_backward_weight(s, library, g, p.batch, x.data(), dy.data(), dw.data(), db.data(), scratch.data());
  CHECK(near(y.floats(), p.y(true, true), {.of_largest = tolerance<float>}));
  CHECK(near(dw.floats(), p.dw(p.dy), {.of_largest = tolerance<float>}));
  CHECK(near(db.floats(), p.db(p.dy), {.of_largest = tolerance<float>}));
  check_pool_forward(s, library, p, true);
  CHECK(scratch.intact());
  CHECK(library.plans() == 0);
  CHECK(library.products().plans() == 0);
}

TEST_CASE("cuda conv2d: odd images of few channels are pooled as well", "[cuda][conv2d]") {
  const stream s;
  cudnn library(s, precision::fp32);
  const conv2d_geometry g{3, 5, 7, 8, 3, 3, 1, 1, 1, 1};
  const problem<float> p(g, 2);
  check_pool_forward(s, library, p, true);
  floats x(s, p.x), d_pooled(s, p.d_pooled), w(s, p.w), dx(s, p.x.size()), dw(s, p.w.size()), db(s, p.bias.size()),
      scratch(s, kd::cuda::conv2d_scratch(g, p.batch));
  bytes winners(s, p.winners);
  kd::cuda::conv2d_relu_pool_backward_data(s, library, g, p.batch, d_pooled.data(), winners.data(), w.data(), false,
                                           dx.data(), scratch.data());
  kd::cuda::conv2d_relu_pool_backward_weight(s, library, g, p.batch, x.data(), d_pooled.data(), winners.data(),
                                             dw.data(), db.data(), scratch.data());
  CHECK(near(dx.floats(), p.dx(p.unpooled(), false), {.of_largest = tolerance<float>}));
  CHECK(near(dw.floats(), p.dw(p.unpooled()), {.of_largest = tolerance<float>}));
  CHECK(near(db.floats(), p.db(p.unpooled()), {.of_largest = tolerance<float>}));
}

TEST_CASE("cuda conv2d: fp32 does not round its factors, tf32 may", "[cuda][conv2d]") {
  const stream s;
  const conv2d_geometry g{64, 4, 4, 64, 1, 1, 2, 2};
  // 1 + 2^-12 is 1 in tf32.
  const std::vector<float> ones(g.in().size(), 1 + 0x1p-12f);
  floats x(s, ones), w(s, std::vector<float>(g.weights(), 1.0f)), y(s, g.out().size());
  cudnn exact(s, precision::fp32);
  kd::cuda::conv2d_forward(s, exact, g, 1, x.data(), w.data(), nullptr, false, y.data());
  CHECK(y.floats() == std::vector<float>(g.out().size(), 64 + 0x1p-6f));
  cudnn rounding(s, precision::tf32);
  kd::cuda::conv2d_forward(s, rounding, g, 1, x.data(), w.data(), nullptr, false, y.data());
  CHECK(near(y.floats(), std::vector<float>(g.out().size(), 64.0f), {.of_largest = 5e-4}));
}

TEST_CASE("cuda conv2d: NaN passes relu and wins its window", "[cuda][conv2d]") {
  const stream s;
  cudnn library(s, precision::fp32);
  const conv2d_geometry g{1, 2, 4, 40, 1, 1, 1, 1, 0, 0};
  const float nan = std::numeric_limits<float>::quiet_NaN();
  floats x(s, std::vector<float>{-1, 5, nan, 9, -2, -3, 1, 2}), w(s, std::vector<float>(40, 1.0f)), y(s, 80);
  bytes winners(s, 80);
  kd::cuda::conv2d_relu_pool_forward(s, library, g, 1, x.data(), w.data(), nullptr, y.data(), winners.data());
  const auto got = y.floats(), places = winners.floats();
  for (std::size_t c = 0; c < 40; ++c) {
    CHECK(got[c] == 5);
    CHECK(places[c] == 1);
    CHECK(std::isnan(got[40 + c]));
    CHECK(places[40 + c] == 0);
  }
}

TEST_CASE("cuda conv2d: dead taps can be left as they are", "[cuda][conv2d]") {
  const stream s;
  cudnn library(s, precision::fp32);
  const problem<float> p(by_products[0], 4);
  floats x(s, p.x), dy(s, p.dy), dw(s, std::vector<float>(p.w.size(), -7.0f));
  kd::cuda::conv2d_backward_weight(s, library, p.g, p.batch, x.data(), dy.data(), dw.data(), nullptr, nullptr, false);
  const auto got = dw.floats();
  const auto dead = p.dead();
  std::size_t kept = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    kept += got[i] == -7;
    CHECK((got[i] == -7) == dead[i]);
  }
  CHECK(kept == p.w.size() / 9 * 8);
}

TEST_CASE("cuda conv2d: an empty batch has no gradient", "[cuda][conv2d]") {
  const stream s;
  cudnn library(s, precision::fp32);
  for (const conv2d_geometry& g : {by_cudnn[1], by_products[0]}) {
    floats y(s, 1), dw(s, g.weights()), db(s, g.out_channels);
    bytes winners(s, 1);
    kd::cuda::conv2d_forward<float>(s, library, g, 0, nullptr, nullptr, nullptr, true, y.data());
    kd::cuda::conv2d_relu_pool_forward<float>(s, library, g, 0, nullptr, nullptr, nullptr, y.data(), winners.data());
    kd::cuda::conv2d_backward_data<float>(s, library, g, 0, nullptr, nullptr, false, y.data(), nullptr);
    kd::cuda::conv2d_relu_pool_backward_data<float>(s, library, g, 0, nullptr, nullptr, nullptr, false, y.data(),
                                                    nullptr);
    CHECK(std::isnan(y.floats()[0]));
    for (const bool pool : {false, true}) {
      if (pool)
        kd::cuda::conv2d_relu_pool_backward_weight<float>(s, library, g, 0, nullptr, nullptr, nullptr, dw.data(),
                                                          db.data(), nullptr);
      else
        kd::cuda::conv2d_backward_weight<float>(s, library, g, 0, nullptr, nullptr, dw.data(), db.data(), nullptr);
      CHECK(dw.floats() == std::vector<float>(g.weights(), 0.0f));
      CHECK(db.floats() == std::vector<float>(g.out_channels, 0.0f));
    }
  }
}

TEST_CASE("cuda conv2d: a graph gives the same bits, without taking memory", "[cuda][conv2d][graph]") {
  const stream s;
  cudnn library(s, precision::bf16);
  const problem<bfloat16> p({20, 6, 6, 36, 3, 3, 1, 1, 1, 1}, 3), one({20, 1, 1, 36, 3, 3, 1, 1, 1, 1}, 3);
  guarded_array<bfloat16> x(s, p.x), y(s, p.pooled()), d_pooled(s, p.d_pooled), dx(s, p.x.size()), x1(s, one.x),
      y1(s, one.dy.size());
  floats w(s, p.w), bias(s, p.bias), dw(s, p.w.size()), db(s, p.bias.size());
  bytes winners(s, p.pooled());
  const auto step = [&] {
    kd::cuda::conv2d_relu_pool_forward(s, library, p.g, 3, x.data(), w.data(), bias.data(), y.data(), winners.data());
    kd::cuda::conv2d_relu_pool_backward_data(s, library, p.g, 3, d_pooled.data(), winners.data(), w.data(), false,
                                             dx.data(), nullptr);
    kd::cuda::conv2d_relu_pool_backward_weight(s, library, p.g, 3, x.data(), d_pooled.data(), winners.data(), dw.data(),
                                               db.data(), nullptr);
    kd::cuda::conv2d_forward(s, library, one.g, 3, x1.data(), w.data(), bias.data(), true, y1.data());
  };
  step();
  const auto all = [&] { return std::vector{y.floats(), dx.floats(), dw.floats(), db.floats(), y1.floats()}; };
  const auto eager = all();
  const std::size_t plans = library.plans();
  const auto recorded = kd::cuda::graph::capture(s, step);
  CHECK(library.plans() == plans);
  kd::cuda::fill_zero(s, y.data(), p.pooled());
  kd::cuda::fill_zero(s, dx.data(), p.x.size());
  kd::cuda::fill_zero(s, dw.data(), p.w.size());
  kd::cuda::fill_zero(s, y1.data(), one.dy.size());
  CHECK(all() != eager);
  recorded.launch(s);
  CHECK(all() == eager);
}

#if defined(KD_SIMT)

TEST_CASE("cuda conv2d: errors of cuDNN say operation, name, text and remedy", "[cuda][conv2d][error]") {
  const stream s;
  cudnn library(s, precision::fp32);
  const problem<float> p(by_cudnn[2], 1);
  floats x(s, p.x), w(s, p.w), y(s, p.dy.size());
  const auto forward = [&] {
    kd::cuda::conv2d_forward(s, library, p.g, 1, x.data(), w.data(), nullptr, false, y.data());
  };
  const auto failing = [&](const char* call, cudnnStatus_t status) {
    simt::reset_libraries();
    simt::libraries().failing_call = call;
    simt::libraries().failing_status = status;
    const auto message = kd_test::message_of<kd::device_error>([&] {
      if (std::string(call) == "cudnnCreate")
        cudnn another(s, precision::fp32);
      else
        forward();
    });
    simt::reset_libraries();
    return message;
  };
  CHECK(kd_test::holds(failing("cudnnCreate", CUDNN_STATUS_NOT_INITIALIZED),
                       "kd::cuda: cudnnCreate failed: CUDNN_STATUS_NOT_INITIALIZED (an error of the stand-in",
                       "all of cuDNN's files are of one version"));
  CHECK(kd_test::holds(failing("cudnnGetConvolutionForwardAlgorithm_v7", CUDNN_STATUS_NOT_SUPPORTED),
                       "cuDNN's ranking of algorithms failed: CUDNN_STATUS_NOT_SUPPORTED", "CUDNN_LOGLEVEL_DBG=2"));
  CHECK(kd_test::holds(failing("cudnnConvolutionForward", CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED),
                       "cudnnConvolutionForward failed: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
                       "use a smaller batch"));
  cudnn fresh(s, precision::fp32);
  simt::libraries().deterministic_convolutions = false;
  const auto none = kd_test::message_of<kd::device_error>(
      [&] { kd::cuda::conv2d_forward(s, fresh, p.g, 1, x.data(), w.data(), nullptr, false, y.data()); });
  simt::reset_libraries();
  CHECK(kd_test::holds(none,
                       "no deterministic algorithm within 256 MiB of workspace for the convolution of 1 images "
                       "[20,5,4] and a 1x1 filter to 24 channels in fp32",
                       "use a smaller batch"));
  forward();
  CHECK(near(y.floats(), p.y(false, false), {.of_largest = tolerance<float>}));
}

#endif
