#include "kd/cuda/norm.hpp"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded_array.hpp"

namespace {

using kd::kernel::bfloat16;
using kd_test::guarded_array;
using kd_test::largest_magnitude;
using kd_test::near;
using kd_test::normal_values;
using kd_test::rounded;

// Arrays of one layer, [N][H][W][C] and [C]; the former hold values that T can hold.
template <class T>
struct problem {
  kd::shape s;
  std::size_t batch;
  bool residual, relu;
  std::vector<float> x, extra, dy;  // [N][H][W][C]
  std::vector<float> gamma, beta, running_mean, running_var;

  problem(const kd::shape& size, std::size_t n, bool with_residual, bool with_relu, double mean = 0.5, double std = 2)
      : s(size),
        batch(n),
        residual(with_residual),
        relu(with_relu),
        x(rounded<T>(normal_values(n * size.size(), 1, mean, std))),
        extra(rounded<T>(normal_values(n * size.size(), 2))),
        dy(rounded<T>(normal_values(n * size.size(), 3))),
        gamma(normal_values(size.channels, 4, 1, 0.3)),
        beta(normal_values(size.channels, 5, 0, 0.3)),
        running_mean(normal_values(size.channels, 6)),
        running_var(normal_values(size.channels, 7, 3, 0.2)) {}

  double count() const { return static_cast<double>(batch * s.pixels()); }
};

// Everything in float64, from the definitions of the paper and of PyTorch's documentation.
struct reference {
  std::vector<double> mean, variance, inv_std, y, g, dx, d_gamma, d_beta;

  template <class T>
  explicit reference(const problem<T>& p, double epsilon = 1e-5) {
    const std::size_t n = p.x.size(), channels = p.s.channels;
    mean.assign(channels, 0.0);
    variance = mean;
    for (std::size_t i = 0; i < n; ++i) mean[i % channels] += static_cast<double>(p.x[i]) / p.count();
    for (std::size_t i = 0; i < n; ++i)
      variance[i % channels] += std::pow(static_cast<double>(p.x[i]) - mean[i % channels], 2) / p.count();
    for (const double v : variance) inv_std.push_back(1 / std::sqrt(v + epsilon));
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t c = i % channels;
      double out = hat(p.x, i) * static_cast<double>(p.gamma[c]) + static_cast<double>(p.beta[c]);
      if (p.residual) out += static_cast<double>(p.extra[i]);
      y.push_back(p.relu && out <= 0 ? 0.0 : out);
    }
  }
  // The gradients; `out` decides where the relu was open, so that a value next to 0 is no matter of rounding.
  template <class T>
  void backward(const problem<T>& p, const std::vector<float>& out) {
    const std::size_t n = p.x.size(), channels = p.s.channels;
    d_gamma.assign(channels, 0.0);
    d_beta = d_gamma;
    for (std::size_t i = 0; i < n; ++i) {
      g.push_back(p.relu && out[i] <= 0 ? 0.0 : static_cast<double>(p.dy[i]));
      d_beta[i % channels] += g[i];
      d_gamma[i % channels] += g[i] * hat(p.x, i);
    }
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t c = i % channels;
      dx.push_back(static_cast<double>(p.gamma[c]) * inv_std[c] *
                   (g[i] - d_beta[c] / p.count() - hat(p.x, i) * d_gamma[c] / p.count()));
    }
  }
  double hat(const std::vector<float>& x, std::size_t i) const {
    const std::size_t c = i % mean.size();
    return (static_cast<double>(x[i]) - mean[c]) * inv_std[c];
  }
};

// What kd computes.
struct result {
  std::vector<float> y, mean, inv_std, running_mean, running_var, masked, dx, d_gamma, d_beta;
  bool intact;  // nothing written outside the outputs
};

// How the arrays of a run lie.
struct arrangement {
  bool y_is_x = false, y_is_residual = false;  // forward
  bool dx_is_dy = false, masked_is_dy = false, keep_masked = true, want_dx = true;
  std::size_t shift = 0;  // elements by which arrays miss the alignment of vectors
  float epsilon = 1e-5f, momentum = 0.1f;
};

template <class T>
result run(const problem<T>& p, const arrangement& a = {}) {
  const kd::cuda::stream s;
  const std::size_t n = p.x.size(), channels = p.s.channels,
                    scratch_size = kd::cuda::batch_norm2d_scratch(p.s, p.batch);
  guarded_array<T> x(s, p.x, a.shift), forward_x(s, p.x, a.shift), extra(s, p.extra, a.shift), y(s, n, a.shift);
  guarded_array<T> dy(s, p.dy, a.shift), masked(s, n, a.shift), dx(s, n, a.shift);
  // Per channel nothing is aligned to more than a float.
  guarded_array<float> gamma(s, p.gamma, 1), beta(s, p.beta, 3), running_mean(s, p.running_mean, 1),
      running_var(s, p.running_var, 2), mean(s, channels, 3), inv_std(s, channels, 1), d_gamma(s, channels, 2),
      d_beta(s, channels, 1), scratch(s, scratch_size), second_scratch(s, scratch_size);
  guarded_array<T>& out = a.y_is_x ? forward_x : a.y_is_residual ? extra : y;
  kd::cuda::batch_norm2d_forward_train<T>(s, p.s, p.batch, forward_x.data(), gamma.data(), beta.data(), a.epsilon,
                                          a.momentum, p.residual ? extra.data() : nullptr, p.relu, out.data(),
                                          mean.data(), inv_std.data(), running_mean.data(), running_var.data(),
                                          scratch.data());
  guarded_array<T>& g = a.masked_is_dy ? dy : masked;
  guarded_array<T>& gradient = a.dx_is_dy ? dy : dx;
  kd::cuda::batch_norm2d_backward<T>(s, p.s, p.batch, x.data(), p.relu ? out.data() : nullptr, dy.data(), gamma.data(),
                                     mean.data(), inv_std.data(), p.relu, a.keep_masked ? g.data() : nullptr,
                                     a.want_dx ? gradient.data() : nullptr, d_gamma.data(), d_beta.data(),
                                     second_scratch.data());
  bool intact = mean.intact() && inv_std.intact() && running_mean.intact() && running_var.intact() &&
                d_gamma.intact() && d_beta.intact() && scratch.intact() && second_scratch.intact();
  for (const auto* array : {&x, &forward_x, &extra, &y, &dy, &masked, &dx}) intact = intact && array->intact();
  return {out.floats(), mean.floats(),     inv_std.floats(), running_mean.floats(), running_var.floats(),
          g.floats(),   gradient.floats(), d_gamma.floats(), d_beta.floats(),       intact};
}

// Roundings of what is stored: float, or half a unit in the last of 8 bits, with room for the float before it.
template <class T>
constexpr double storage_rounding = std::is_same_v<T, float> ? 0.0 : 0x1.1p-8;

// |got - want| <= tolerance * scale + storage rounding of want, everywhere; one tolerance per channel.
template <class T>
kd_test::comparison close_by_channel(const std::vector<float>& got, const std::vector<double>& want,
                                     const std::vector<double>& tolerance, double scale) {
  kd_test::comparison all;
  all.add_size(got.size(), want.size());
  for (std::size_t i = 0; i < std::min(got.size(), want.size()); ++i)
    all.add(static_cast<double>(got[i]), want[i],
            tolerance[i % tolerance.size()] * scale + storage_rounding<T> * std::abs(want[i]));
  return all;
}

template <class T>
void check(const problem<T>& p, const arrangement& a = {}) {
  CAPTURE(kd::text_of(p.s), p.batch, p.residual, p.relu, a.shift, sizeof(T));
  const result got = run(p, a);
  reference want(p, static_cast<double>(a.epsilon));
  want.backward(p, got.y);
  CHECK(got.intact);
  // A few roundings of float, 6e-8 each.
  CHECK(near(got.mean, want.mean, {.of_largest = 1e-6}));
  CHECK(near(got.inv_std, want.inv_std, {.of_largest = 1e-6}));
  // The mean is kept as a float: half a unit in its last place, 2^-24, over the deviation, is an error of every xhat.
  const auto with_mean = [&](double tolerance) {
    std::vector<double> t;
    for (std::size_t c = 0; c < p.s.channels; ++c)
      t.push_back(tolerance + 2 * 0x1p-24 * std::abs(want.mean[c]) * want.inv_std[c]);
    return t;
  };
  CHECK(close_by_channel<T>(got.y, want.y, with_mean(1e-6), largest_magnitude(want.y)));
  // Sums of up to 16 values in float and a tree over 256: about ten roundings, in units of the sum of the sizes.
  double sizes = 0;
  for (const double g : want.g) sizes += std::abs(g);
  sizes /= static_cast<double>(p.s.channels);
  CHECK(close_by_channel<float>(got.d_beta, want.d_beta, {1e-6}, sizes));
  CHECK(close_by_channel<float>(got.d_gamma, want.d_gamma, with_mean(2e-6), sizes));
  if (a.keep_masked) CHECK(near(got.masked, want.g, {}));
  // With few rows g - d_beta / M - xhat d_gamma / M cancels to nothing, in units of g.
  std::vector<double> terms;
  for (std::size_t i = 0; i < p.x.size(); ++i)
    terms.push_back(want.g[i] * static_cast<double>(p.gamma[i % p.s.channels]) * want.inv_std[i % p.s.channels]);
  if (a.want_dx) CHECK(close_by_channel<T>(got.dx, want.dx, with_mean(4e-6), largest_magnitude(terms)));
  std::vector<double> running_mean, running_var;
  for (std::size_t c = 0; c < p.s.channels; ++c) {
    const double m = static_cast<double>(a.momentum), n = p.count();
    running_mean.push_back((1 - m) * static_cast<double>(p.running_mean[c]) + m * want.mean[c]);
    running_var.push_back((1 - m) * static_cast<double>(p.running_var[c]) + m * want.variance[c] * n / (n - 1));
  }
  CHECK(near(got.running_mean, running_mean, {.of_largest = 1e-6}));
  CHECK(near(got.running_var, running_var, {.of_largest = 1e-6}));
}

const kd::shape small_shapes[] = {kd::image_shape(1, 1, 1),  kd::image_shape(3, 5, 7),   kd::image_shape(16, 4, 4),
                                  kd::image_shape(64, 2, 2), kd::image_shape(512, 1, 1), kd::image_shape(33, 3, 3)};

}  // namespace

TEMPLATE_TEST_CASE("cuda batch_norm2d: training pass and gradients match the float64 definition", "[cuda][norm]", float,
                   bfloat16) {
  for (const kd::shape& s : small_shapes)
    for (const std::size_t batch : {1, 2, 5, 17})
      for (const bool residual : {false, true})
        for (const bool relu : {false, true})
          if (batch * s.pixels() > 1) check(problem<TestType>(s, batch, residual, relu));
}

TEMPLATE_TEST_CASE("cuda batch_norm2d: so do rows that are cut into slabs", "[cuda][norm]", float, bfloat16) {
  struct {
    kd::shape s;
    std::size_t batch;
  } const cases[] = {
      {kd::image_shape(8, 1, 2048), 1},  // the last size of one block, and the next
      {kd::image_shape(8, 1, 2049), 1},   {kd::image_shape(5, 1, 2049), 1},  {kd::image_shape(3, 31, 37), 2},
      {kd::image_shape(64, 16, 16), 9},   {kd::image_shape(33, 19, 11), 10},  // two groups of 17 columns, one is idle
      {kd::image_shape(132, 1, 2049), 1},                                     // 33 vectors in two groups
  };
  for (const auto& c : cases)
    for (const bool residual : {false, true}) check(problem<TestType>(c.s, c.batch, residual, residual));
  check(problem<TestType>(kd::image_shape(3, 31, 37), 2, false, true));
  check(problem<TestType>(kd::image_shape(3, 31, 37), 2, true, false));
}

TEST_CASE("cuda batch_norm2d: more rows than one reading of every thread", "[cuda][norm]") {
  // 256 slabs of 1,025 or 1,026 rows of one channel, then 128 slabs of several readings in fours.
  check(problem<float>(kd::image_shape(1, 512, 513), 1, true, true));
  check(problem<bfloat16>(kd::image_shape(4, 3, 200), 500, false, true));
  // 249 slabs of 33 rows and one of a single row, in which all lanes but one are idle.
  check(problem<float>(kd::image_shape(31, 14, 587), 1, false, true));
}

TEST_CASE("cuda batch_norm2d: arrays that are not aligned to vectors", "[cuda][norm]") {
  for (const std::size_t shift : {1, 2}) {
    check(problem<float>(kd::image_shape(16, 4, 4), 3, true, true), {.shift = shift});
    check(problem<bfloat16>(kd::image_shape(8, 16, 43), 3, true, true), {.shift = shift});
  }
}

TEST_CASE("cuda batch_norm2d: momentum and epsilon", "[cuda][norm]") {
  for (const std::size_t batch : {17, 300}) {
    check(problem<float>(kd::image_shape(6, 3, 3), batch, false, false), {.epsilon = 0.5f, .momentum = 0.75f});
    check(problem<float>(kd::image_shape(6, 3, 3), batch, false, false), {.momentum = 1.0f});
  }
}

TEST_CASE("cuda batch_norm2d: statistics hold where the mean is far from zero", "[cuda][norm]") {
  struct {
    double mean, deviation;
  } const cases[] = {{1000, 1}, {100, 0.1}, {-1e4, 1}, {0, 1e-4}};
  for (const auto& c : cases)
    for (const std::size_t batch : {33, 129}) {
      const problem<float> p(kd::image_shape(3, 4, 5), batch, false, false, c.mean, c.deviation);
      const reference want(p, 1e-12);
      const result got = run(p, {.epsilon = 1e-12f});
      CAPTURE(c.mean, c.deviation, batch);
      // Against float64 of the same (rounded) inputs; sums of squares in float would be wrong in the first digit.
      kd_test::comparison means("mean");
      for (std::size_t k = 0; k < 3; ++k)
        means.add(static_cast<double>(got.mean[k]), want.mean[k],
                  0x1p-24 * std::abs(want.mean[k]) + 1e-7 / want.inv_std[k]);
      CHECK(means);
      CHECK(near(got.inv_std, want.inv_std, {.of_largest = 1e-6}));
    }
}

TEST_CASE("cuda batch_norm2d: a first value far from all others does not spoil the variance", "[cuda][norm]") {
  for (const std::size_t batch : {17, 300}) {
    problem<float> p(kd::image_shape(4, 3, 3), batch, false, false, 0, 1);
    for (std::size_t c = 0; c < 4; ++c) p.x[c] = 3000;
    const reference want(p);
    const result got = run(p);
    CHECK(near(got.inv_std, want.inv_std, {.of_largest = 1e-6}));
    for (std::size_t c = 0; c < 4; ++c)
      CHECK(near(static_cast<double>(got.mean[c]), want.mean[c], {.absolute = 2e-6 / want.inv_std[c]}));
  }
}

TEST_CASE("cuda batch_norm2d: a constant channel gives beta and no NaN", "[cuda][norm]") {
  for (const std::size_t batch : {17, 100})
    for (const std::size_t channels : {1, 4}) {
      problem<float> p(kd::image_shape(channels, 5, 5), batch, false, false);
      for (float& v : p.x) v = 1234.5678f;
      const result got = run(p);
      for (const float v : got.mean) CHECK(v == 1234.5678f);
      for (std::size_t i = 0; i < got.y.size(); ++i) REQUIRE(got.y[i] == p.beta[i % channels]);
      for (const float v : got.dx) REQUIRE(std::isfinite(v));
    }
}

TEST_CASE("cuda batch_norm2d: gradients match numerical differences", "[cuda][norm]") {
  for (const bool relu : {false, true}) {
    const problem<float> p(kd::image_shape(3, 2, 2), 5, true, relu);
    const auto loss = [&](const problem<float>& q) {
      const auto y = reference(q).y;
      double sum = 0;
      for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * static_cast<double>(q.dy[i]);
      return sum;
    };
    const auto differences = [&](std::vector<float> problem<float>::*values) {
      std::vector<double> d((p.*values).size());
      for (std::size_t i = 0; i < d.size(); ++i) {
        problem<float> up = p, down = p;
        (up.*values)[i] += 1e-3f;
        (down.*values)[i] -= 1e-3f;
        const double step = static_cast<double>((up.*values)[i]) - static_cast<double>((down.*values)[i]);
        d[i] = (loss(up) - loss(down)) / step;
      }
      return d;
    };
    const result got = run(p);
    CAPTURE(relu);
    // Central differences: truncation of order step^2 = 1e-6 times a third derivative of order 10.
    CHECK(near(got.dx, differences(&problem<float>::x), {.of_largest = 1e-4}));
    CHECK(near(got.d_gamma, differences(&problem<float>::gamma), {.of_largest = 1e-4}));
    CHECK(near(got.d_beta, differences(&problem<float>::beta), {.of_largest = 1e-4}));
    CHECK(near(got.masked, differences(&problem<float>::extra), {.of_largest = 1e-4}));
  }
}

TEMPLATE_TEST_CASE("cuda batch_norm2d: bit-equal in a second run, in place, and without what is not wanted",
                   "[cuda][norm]", float, bfloat16) {
  for (const kd::shape& s : {kd::image_shape(20, 3, 3), kd::image_shape(7, 9, 40)})
    for (const bool relu : {false, true}) {
      const problem<TestType> p(s, 9, true, relu);
      CAPTURE(kd::text_of(s), relu);
      const result once = run(p);
      const auto same_forward = [&](const result& other) {
        return other.intact && other.y == once.y && other.mean == once.mean && other.inv_std == once.inv_std &&
               other.running_mean == once.running_mean && other.running_var == once.running_var;
      };
      const auto same_sums = [&](const result& other) {
        return other.intact && other.d_gamma == once.d_gamma && other.d_beta == once.d_beta;
      };
      const result again = run(p);
      CHECK(same_forward(again));
      CHECK(same_sums(again));
      CHECK(again.dx == once.dx);
      CHECK(again.masked == once.masked);
      CHECK(same_forward(run(p, {.y_is_x = true})));
      CHECK(same_forward(run(p, {.y_is_residual = true})));
      const result over_dy = run(p, {.dx_is_dy = true, .keep_masked = false});
      CHECK(same_sums(over_dy));
      CHECK(over_dy.dx == once.dx);
      const result beside = run(p, {.dx_is_dy = true});
      CHECK(beside.dx == once.dx);
      CHECK(beside.masked == once.masked);
      const result masked_over_dy = run(p, {.masked_is_dy = true});
      CHECK(masked_over_dy.dx == once.dx);
      CHECK(masked_over_dy.masked == once.masked);
      const result no_dx = run(p, {.want_dx = false});
      CHECK(same_sums(no_dx));
      CHECK(no_dx.masked == once.masked);
      for (const float v : no_dx.dx) REQUIRE(std::isnan(v));  // not touched
    }
}

TEMPLATE_TEST_CASE("cuda batch_norm2d: inference uses the running statistics", "[cuda][norm]", float, bfloat16) {
  const kd::cuda::stream stream;
  for (const kd::shape& s : small_shapes)
    for (const bool residual : {false, true})
      for (const bool relu : {false, true})
        for (const std::size_t batch : {1, 17}) {
          const problem<TestType> p(s, batch, residual, relu);
          CAPTURE(kd::text_of(s), batch, residual, relu);
          std::vector<double> want;
          for (std::size_t i = 0; i < p.x.size(); ++i) {
            const std::size_t c = i % s.channels;
            double out = (static_cast<double>(p.x[i]) - static_cast<double>(p.running_mean[c])) /
                             std::sqrt(static_cast<double>(p.running_var[c]) + 1e-5) * static_cast<double>(p.gamma[c]) +
                         static_cast<double>(p.beta[c]);
            if (residual) out += static_cast<double>(p.extra[i]);
            want.push_back(relu && out < 0 ? 0.0 : out);
          }
          guarded_array<TestType> x(stream, p.x), extra(stream, p.extra), y(stream, p.x.size());
          guarded_array<float> gamma(stream, p.gamma, 1), beta(stream, p.beta, 1), mean(stream, p.running_mean, 1),
              variance(stream, p.running_var, 1);
          const auto infer = [&](TestType* to) {
            kd::cuda::batch_norm2d_forward_infer<TestType>(stream, s, batch, x.data(), gamma.data(), beta.data(),
                                                           mean.data(), variance.data(), 1e-5f,
                                                           residual ? extra.data() : nullptr, relu, to);
          };
          infer(y.data());
          CHECK(close_by_channel<TestType>(y.floats(), want, {1e-6}, largest_magnitude(want)));
          CHECK(y.intact());
          infer(x.data());
          CHECK(x.floats() == y.floats());
          CHECK(x.intact());
        }
}

TEST_CASE("cuda batch_norm2d: NaN spreads through its channel alone", "[cuda][norm]") {
  for (const std::size_t batch : {4, 3000})
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      problem<float> p(kd::image_shape(2, 1, 1), batch, false, true);
      p.x[2 * 3] = bad;
      const result got = run(p);
      CAPTURE(batch, bad);
      CHECK(!std::isfinite(got.mean[0]));
      CHECK(std::isnan(got.running_var[0]));
      CHECK(std::isfinite(got.mean[1]));
      for (std::size_t i = 0; i < got.y.size(); i += 2) {
        REQUIRE(std::isnan(got.y[i]));
        REQUIRE(std::isnan(got.dx[i]));
        REQUIRE(got.masked[i] == p.dy[i]);  // the relu of a NaN lets the gradient pass
        REQUIRE(std::isfinite(got.y[i + 1]));
        REQUIRE(std::isfinite(got.dx[i + 1]));
      }
      CHECK(std::isnan(got.d_gamma[0]));
      CHECK(std::isfinite(got.d_gamma[1]));
    }
}

TEST_CASE("cuda batch_norm2d: one value per channel is refused, an empty batch does nothing", "[cuda][norm]") {
  const problem<float> single(kd::image_shape(2, 1, 1), 1, false, false);
  CHECK_THROWS_AS(run(single), kd::argument_error);
  try {
    run(single);
  } catch (const kd::argument_error& e) {
    CHECK(std::string(e.what()).find("more than 1 value per channel") != std::string::npos);
  }
  for (const kd::shape& s : {kd::image_shape(3, 4, 4), kd::image_shape(0, 4, 4)}) {
    const result got = run(problem<float>(s, s.channels == 0 ? 3 : 0, true, true));
    for (const float v : got.mean) CHECK(std::isnan(v));
    for (const float v : got.d_beta) CHECK(std::isnan(v));
    CHECK(kd::cuda::batch_norm2d_scratch(s, 0) == 0);
  }
}
