#include "kd/cpu/norm.hpp"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kd/cpu/device.hpp"
#include "kd/nn/layers.hpp"
#include "kd/nn/network.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/numbers.hpp"

namespace {

using kd::cpu::lanes;
using kd_test::normal_values;

// Lanes beyond the batch hold `garbage`.
std::vector<float> blocked(const kd::shape& s, std::size_t batch, const std::vector<float>& rows, float garbage = 0) {
  std::vector<float> x(kd::cpu::storage_size(s, batch));
  kd::cpu::from_rows({1}, s, batch, rows.data(), x.data());
  const std::size_t from = (kd::cpu::blocks_of(batch) - 1) * s.size() * lanes;
  for (std::size_t i = from; i < x.size(); ++i)
    if ((batch - 1) % lanes < i % lanes) x[i] = garbage;
  return x;
}
std::vector<float> unblocked(const kd::shape& s, std::size_t batch, const std::vector<float>& x) {
  std::vector<float> rows(batch * s.size());
  kd::cpu::to_rows({1}, s, batch, x.data(), rows.data());
  return rows;
}

struct problem {
  kd::shape s;
  std::size_t batch;
  bool residual, relu;
  std::vector<float> x, extra, dy;  // [N][C][H][W]
  std::vector<float> gamma, beta;   // [C]
  std::vector<float> running_mean, running_var;

  problem(const kd::shape& size, std::size_t n, bool with_residual, bool with_relu, double mean = 0.5, double std = 2)
      : s(size),
        batch(n),
        residual(with_residual),
        relu(with_relu),
        x(normal_values(n * size.size(), 1, mean, std)),
        extra(normal_values(n * size.size(), 2)),
        dy(normal_values(n * size.size(), 3)),
        gamma(normal_values(size.channels, 4, 1, 0.3)),
        beta(normal_values(size.channels, 5, 0, 0.3)),
        running_mean(normal_values(size.channels, 6)),
        running_var(normal_values(size.channels, 7, 3, 0.2)) {}

  double values() const { return static_cast<double>(batch * s.pixels()); }
  std::size_t channel(std::size_t i) const { return i / s.pixels() % s.channels; }
};

// Everything in float64, from the definitions of the paper and PyTorch's documentation.
struct reference {
  std::vector<double> mean, variance, inv_std, y, g, dx, d_gamma, d_beta;

  reference(const problem& p, double epsilon) {
    const std::size_t n = p.x.size();
    mean.resize(p.s.channels);
    variance = inv_std = d_gamma = d_beta = mean;
    for (std::size_t i = 0; i < n; ++i) mean[p.channel(i)] += static_cast<double>(p.x[i]) / p.values();
    for (std::size_t i = 0; i < n; ++i)
      variance[p.channel(i)] += std::pow(static_cast<double>(p.x[i]) - mean[p.channel(i)], 2) / p.values();
    for (std::size_t c = 0; c < p.s.channels; ++c) inv_std[c] = 1 / std::sqrt(variance[c] + epsilon);
    std::vector<double> hat(n);
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t c = p.channel(i);
      hat[i] = (static_cast<double>(p.x[i]) - mean[c]) * inv_std[c];
      double out = hat[i] * static_cast<double>(p.gamma[c]) + static_cast<double>(p.beta[c]);
      if (p.residual) out += static_cast<double>(p.extra[i]);
      g.push_back(p.relu && out <= 0 ? 0.0 : static_cast<double>(p.dy[i]));
      y.push_back(p.relu && out <= 0 ? 0.0 : out);
      d_beta[c] += g[i];
      d_gamma[c] += g[i] * hat[i];
    }
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t c = p.channel(i);
      dx.push_back(static_cast<double>(p.gamma[c]) * inv_std[c] *
                   (g[i] - d_beta[c] / p.values() - hat[i] * d_gamma[c] / p.values()));
    }
  }
};

// What kd computes; vectors of activations in the lane-blocked layout.
struct result {
  std::vector<float> y, mean, inv_std, running_mean, running_var, masked, dx, d_gamma, d_beta;
};

result run(const problem& p, int threads, kd::cpu::batch_norm_options options = {}, bool keep_masked = true,
           bool in_place = false) {
  const float garbage = 1e6f;
  const auto x = blocked(p.s, p.batch, p.x, garbage), extra = blocked(p.s, p.batch, p.extra, garbage);
  auto dy = blocked(p.s, p.batch, p.dy);
  result r;
  r.y.assign(x.size(), 9.0f);
  r.mean.assign(p.s.channels, 9.0f);
  r.inv_std = r.d_gamma = r.d_beta = r.mean;
  r.running_mean = p.running_mean;
  r.running_var = p.running_var;
  const kd::cpu::parallel par{threads};
  kd::cpu::batch_norm2d_forward_train(par, p.s, p.batch, x.data(), p.gamma.data(), p.beta.data(), options,
                                      p.residual ? extra.data() : nullptr, p.relu, r.y.data(), r.mean.data(),
                                      r.inv_std.data(), r.running_mean.data(), r.running_var.data());
  r.dx.assign(x.size(), 9.0f);
  if (keep_masked) r.masked.assign(x.size(), 9.0f);
  kd::cpu::batch_norm2d_backward(par, p.s, p.batch, x.data(), p.relu ? r.y.data() : nullptr, dy.data(), p.gamma.data(),
                                 r.mean.data(), r.inv_std.data(), p.relu, keep_masked ? r.masked.data() : nullptr,
                                 in_place ? dy.data() : r.dx.data(), r.d_gamma.data(), r.d_beta.data());
  if (in_place) r.dx = dy;
  return r;
}

const kd::shape shapes[] = {kd::image_shape(5, 4, 3), kd::image_shape(67, 1, 1), kd::image_shape(2, 9, 7)};

}  // namespace

TEST_CASE("batch_norm2d: training pass and gradients match the float64 definition", "[cpu][norm]") {
  for (const kd::shape& s : shapes)
    for (const std::size_t batch : {2, 15, 16, 17, 33})
      for (const bool residual : {false, true})
        for (const bool relu : {false, true}) {
          CAPTURE(kd::text_of(s), batch, residual, relu);
          const problem p(s, batch, residual, relu);
          const reference want(p, 1e-5);
          const result got = run(p, 1);
          CHECK(kd_test::near(got.mean, want.mean, {.of_largest = 1e-6}));
          CHECK(kd_test::near(got.inv_std, want.inv_std, {.of_largest = 1e-6}));
          CHECK(kd_test::near(unblocked(s, batch, got.y), want.y, {.of_largest = 1e-6}));
          CHECK(kd_test::near(got.d_beta, want.d_beta, {.of_largest = 1e-6}));
          CHECK(kd_test::near(got.d_gamma, want.d_gamma, {.of_largest = 2e-6}));
          // Batch 2 of one pixel: g - d_beta / M - xhat * d_gamma / M cancels to nothing, in units of g.
          std::vector<double> terms;
          const auto dx = unblocked(s, batch, got.dx);
          for (std::size_t i = 0; i < dx.size(); ++i)
            terms.push_back(want.g[i] * static_cast<double>(p.gamma[p.channel(i)]) * want.inv_std[p.channel(i)]);
          CHECK(kd_test::near(dx, want.dx, {.absolute = 2e-6 * kd_test::largest_magnitude(terms)}));
          CHECK(kd_test::near(unblocked(s, batch, got.masked), want.g, {}));
          // Gradients beyond the batch are 0.
          CHECK(blocked(s, batch, dx) == got.dx);
          CHECK(blocked(s, batch, unblocked(s, batch, got.masked)) == got.masked);
        }
}

TEST_CASE("batch_norm2d: running statistics follow PyTorch", "[cpu][norm]") {
  for (const float momentum : {0.1f, 0.75f}) {
    const problem p(kd::image_shape(6, 3, 3), 17, false, false);
    const reference want(p, 1e-5);
    const result got = run(p, 1, {.momentum = momentum});
    std::vector<double> mean, variance;
    for (std::size_t c = 0; c < p.s.channels; ++c) {
      const double m = static_cast<double>(momentum), n = p.values();
      mean.push_back((1 - m) * static_cast<double>(p.running_mean[c]) + m * want.mean[c]);
      variance.push_back((1 - m) * static_cast<double>(p.running_var[c]) + m * want.variance[c] * n / (n - 1));
    }
    CHECK(kd_test::near(got.running_mean, mean, {.of_largest = 1e-6}));
    CHECK(kd_test::near(got.running_var, variance, {.of_largest = 1e-6}));
  }
}

TEST_CASE("batch_norm2d: statistics hold where the mean is far from zero", "[cpu][norm]") {
  const double means[] = {100, -1e4, 0}, deviations[] = {0.1, 1, 1e-4};
  for (int i = 0; i < 3; ++i) {
    const problem p(kd::image_shape(3, 8, 8), 33, false, false, means[i], deviations[i]);
    const reference want(p, 1e-12);
    const result got = run(p, 1, {.epsilon = 1e-12f});
    CAPTURE(means[i], deviations[i]);
    // Against float64 of the same (rounded) inputs.
    CHECK(kd_test::near(got.mean, want.mean, {.of_largest = 1e-6}));
    CHECK(kd_test::near(got.inv_std, want.inv_std, {.of_largest = 1e-6}));
  }
}

TEST_CASE("batch_norm2d: a constant channel gives beta and no NaN", "[cpu][norm]") {
  problem p(kd::image_shape(1, 5, 5), 17, false, false);
  for (float& v : p.x) v = 1234.5678f;
  const result got = run(p, 1);
  CHECK(kd_test::near(unblocked(p.s, p.batch, got.y), std::vector<float>(p.x.size(), p.beta[0]), {.absolute = 1e-6}));
  for (const float v : got.dx) REQUIRE(std::isfinite(v));
}

TEST_CASE("batch_norm2d: gradients match numerical differences", "[cpu][norm]") {
  for (const bool relu : {false, true}) {
    const problem p(kd::image_shape(3, 2, 2), 5, true, relu);
    const auto loss = [&](const problem& q) {
      const auto y = reference(q, 1e-5).y;
      double sum = 0;
      for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * static_cast<double>(q.dy[i]);
      return sum;
    };
    const auto differences = [&](std::vector<float> problem::*values) {
      std::vector<double> d((p.*values).size());
      for (std::size_t i = 0; i < d.size(); ++i) {
        problem up = p, down = p;
        (up.*values)[i] += 1e-3f;
        (down.*values)[i] -= 1e-3f;
        const double step = static_cast<double>((up.*values)[i]) - static_cast<double>((down.*values)[i]);
        d[i] = (loss(up) - loss(down)) / step;
      }
      return d;
    };
    const result got = run(p, 1);
    CAPTURE(relu);
    // Central differences: truncation of order step^2 = 1e-6 times a third derivative of order 10.
    CHECK(kd_test::near(unblocked(p.s, p.batch, got.dx), differences(&problem::x), {.of_largest = 1e-4}));
    CHECK(kd_test::near(got.d_gamma, differences(&problem::gamma), {.of_largest = 1e-4}));
    CHECK(kd_test::near(got.d_beta, differences(&problem::beta), {.of_largest = 1e-4}));
    CHECK(kd_test::near(unblocked(p.s, p.batch, got.masked), differences(&problem::extra), {.of_largest = 1e-4}));
  }
}

TEST_CASE("batch_norm2d: bit-equal for every number of threads, in place and without the residual's gradient",
          "[cpu][norm]") {
  for (const kd::shape& s : {kd::image_shape(70, 3, 3), kd::image_shape(131, 1, 1)})
    for (const bool relu : {false, true}) {
      const problem p(s, 33, true, relu);
      const result one = run(p, 1);
      for (const int threads : {2, 3, 5}) {
        CAPTURE(kd::text_of(s), relu, threads);
        const result many = run(p, threads);
        CHECK(many.y == one.y);
        CHECK(many.mean == one.mean);
        CHECK(many.inv_std == one.inv_std);
        CHECK(many.running_var == one.running_var);
        CHECK(many.dx == one.dx);
        CHECK(many.d_gamma == one.d_gamma);
        CHECK(many.d_beta == one.d_beta);
      }
      CHECK(run(p, 2, {}, true, true).dx == one.dx);
      CHECK(run(p, 2, {}, false, true).dx == one.dx);
      CHECK(run(p, 1, {}, false, false).dx == one.dx);
    }
}

TEST_CASE("batch_norm2d: inference uses the running statistics", "[cpu][norm]") {
  for (const kd::shape& s : shapes)
    for (const bool residual : {false, true})
      for (const bool relu : {false, true})
        for (const std::size_t batch : {1, 17}) {
          const problem p(s, batch, residual, relu);
          CAPTURE(kd::text_of(s), batch, residual, relu);
          std::vector<double> want;
          for (std::size_t i = 0; i < p.x.size(); ++i) {
            const std::size_t c = p.channel(i);
            double out = (static_cast<double>(p.x[i]) - static_cast<double>(p.running_mean[c])) /
                             std::sqrt(static_cast<double>(p.running_var[c]) + 1e-5) * static_cast<double>(p.gamma[c]) +
                         static_cast<double>(p.beta[c]);
            if (residual) out += static_cast<double>(p.extra[i]);
            want.push_back(relu && out < 0 ? 0.0 : out);
          }
          const auto x = blocked(s, batch, p.x), extra = blocked(s, batch, p.extra);
          std::vector<float> first;
          for (const int threads : {1, 2}) {
            std::vector<float> y(x.size(), 9.0f);
            kd::cpu::batch_norm2d_forward_infer({threads}, s, batch, x.data(), p.gamma.data(), p.beta.data(),
                                                p.running_mean.data(), p.running_var.data(), {},
                                                residual ? extra.data() : nullptr, relu, y.data());
            CHECK(kd_test::near(unblocked(s, batch, y), want, {.of_largest = 1e-6}));
            if (threads == 1) first = y;
            CHECK(y == first);
          }
        }
}

TEST_CASE("batch_norm2d: NaN spreads, one value per channel is refused", "[cpu][norm]") {
  problem p(kd::image_shape(2, 1, 1), 4, false, true);
  p.x[0] = std::numeric_limits<float>::quiet_NaN();
  const result got = run(p, 1);
  CHECK(std::isnan(got.y[0]));
  CHECK(std::isnan(got.mean[0]));
  CHECK(std::isnan(got.inv_std[0]));
  CHECK(std::isfinite(got.mean[1]));

  problem single(kd::image_shape(2, 1, 1), 1, false, false);
  CHECK_THROWS_AS(run(single, 1), kd::argument_error);
  try {
    run(single, 1);
  } catch (const kd::argument_error& e) {
    CHECK(std::string(e.what()).find("more than 1 value per channel") != std::string::npos);
  }
}

TEST_CASE("batch_norm2d: a network may begin with one, whose input needs no gradient", "[cpu][norm][nn]") {
  namespace nn = kd::nn;
  using Model = nn::sequential<kd::image<2, 3, 3>, nn::batch_norm2d<>, nn::relu, nn::flatten, nn::linear<2>>;
  kd::cpu::device cpu(2);
  kd::network<Model, kd::cpu::device> net(cpu, 1);
  const std::size_t batch = 5;
  float* x = net.input(batch, true);
  for (std::size_t i = 0; i < kd::cpu::device::padded(batch) * 18; ++i) x[i] = static_cast<float>(i % 7) - 3;
  net.forward_train(batch, {});
  float* d = net.logits_gradient(batch);
  for (std::size_t i = 0; i < kd::cpu::device::padded(batch) * 2; ++i) d[i] = i % 16 < batch ? 0.5f : 0.0f;
  net.backward(batch, {});
  double moved = 0;
  for (std::size_t i = 0; i < 4; ++i) moved += std::abs(static_cast<double>(net.gradients()[i]));
  CHECK(moved > 0);
}
