#include "kd/cuda/activation.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded_array.hpp"

namespace {

using kd::kernel::bfloat16;
using kd_test::guarded_array;
using kd_test::random_numbers;
using kd_test::same_bits;

// Below, at and above vectors, blocks of floats and blocks of bfloat16.
const std::size_t sizes[] = {0, 1, 3, 4, 5, 7, 8, 9, 255, 1023, 1024, 1025, 1031, 2047, 2048, 2057};

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

/// Random numbers with a zero of either sign and a NaN among them.
template <class T>
std::vector<T> with_edges(std::size_t n, std::uint32_t draw) {
  auto v = kd_test::random_floats(n, draw);
  const float edges[] = {0.0f, -0.0f, not_a_number};
  for (std::size_t i = 0; i < 3 && 2 * i + 1 < n; ++i) v[2 * i + 1] = edges[i];
  if (n > 3) v[n - 1] = not_a_number;
  return kd_test::rounded_to<T>(v);
}

/// Every number is `want` to one rounding to T; where NaN is wanted, a NaN is right.
template <class T>
kd_test::comparison equal_to_rounding(const std::vector<T>& got, std::vector<double> want) {
  std::vector<float> values = kd_test::to_floats(got);
  for (std::size_t i = 0; i < std::min(values.size(), want.size()); ++i)
    if (std::isnan(values[i]) && std::isnan(want[i])) values[i] = 0, want[i] = 0;
  return kd_test::near(values, want, {.relative = 1.001 * kd_test::rounding<T>}).or_nothing();
}

}  // namespace

TEMPLATE_TEST_CASE("cuda relu: forward and backward match the definition, in place too", "[cuda][activation]", float,
                   bfloat16) {
  using T = TestType;
  const kd::cuda::stream s;
  for (const std::size_t n : sizes)
    for (const std::size_t shift : {0u, 1u}) {
      CAPTURE(n, shift);
      const auto x = with_edges<T>(n, 1), dy = random_numbers<T>(n, 2);
      std::vector<double> want_y(n), want_dx(n);
      for (std::size_t i = 0; i < n; ++i) {
        const double value = kd::kernel::to_float(x[i]);
        want_y[i] = std::isnan(value) ? value : std::max(value, 0.0);
        want_dx[i] = value > 0 || std::isnan(value) ? double{kd::kernel::to_float(dy[i])} : 0.0;
      }
      guarded_array<T> device_x(s, x, shift), y(s, n), device_dy(s, dy), dx(s, n, shift);
      kd::cuda::relu_forward(s, n, device_x.data(), y.data());
      CHECK(equal_to_rounding(y.values(), want_y));
      kd::cuda::relu_backward(s, n, y.data(), device_dy.data(), dx.data());
      CHECK(equal_to_rounding(dx.values(), want_dx));
      kd::cuda::relu_backward(s, n, y.data(), device_dy.data(), device_dy.data());
      CHECK(equal_to_rounding(device_dy.values(), want_dx));
      kd::cuda::relu_forward(s, n, device_x.data(), device_x.data());
      CHECK(equal_to_rounding(device_x.values(), want_y));
    }
}

TEMPLATE_TEST_CASE("cuda add: sums two arrays, whichever of them is the output", "[cuda][activation]", float,
                   bfloat16) {
  using T = TestType;
  const kd::cuda::stream s;
  for (const std::size_t n : sizes)
    for (const std::size_t shift : {0u, 1u}) {
      CAPTURE(n, shift);
      const auto a = with_edges<T>(n, 3), b = random_numbers<T>(n, 4);
      std::vector<double> want(n), twice(n);
      for (std::size_t i = 0; i < n; ++i) {
        want[i] = double{kd::kernel::to_float(a[i])} + double{kd::kernel::to_float(b[i])};
        twice[i] = 2 * double{kd::kernel::to_float(a[i])};
      }
      guarded_array<T> left(s, a), right(s, b), y(s, n, shift), also(s, a);
      kd::cuda::add(s, n, left.data(), right.data(), y.data());
      CHECK(equal_to_rounding(y.values(), want));
      kd::cuda::add(s, n, left.data(), right.data(), right.data());
      CHECK(equal_to_rounding(right.values(), want));
      guarded_array<T> other(s, b, shift);
      kd::cuda::add(s, n, left.data(), other.data(), left.data());
      CHECK(equal_to_rounding(left.values(), want));
      kd::cuda::add(s, n, also.data(), also.data(), also.data());
      CHECK(equal_to_rounding(also.values(), twice));
    }
}

TEMPLATE_TEST_CASE("cuda bias_relu: adds the channel's bias and clamps, each where asked for", "[cuda][activation]",
                   float, bfloat16) {
  using T = TestType;
  const kd::cuda::stream s;
  for (const std::size_t channels : {1u, 3u, 4u, 8u, 12u, 16u, 33u, 64u})
    for (const std::size_t pixels : {0u, 1u, 7u, 64u, 131u})
      for (const bool has_bias : {true, false})
        for (const bool relu : {true, false}) {
          CAPTURE(channels, pixels, has_bias, relu);
          const std::size_t n = pixels * channels;
          const auto x = with_edges<T>(n, 5);
          const auto bias = kd_test::random_floats(channels, 6);
          std::vector<double> want(n);
          for (std::size_t i = 0; i < n; ++i) {
            const double sum = double{kd::kernel::to_float(x[i])} + (has_bias ? double{bias[i % channels]} : 0.0);
            want[i] = relu && sum < 0 ? 0.0 : sum;
            // The sum is rounded to float and then to T.
            if (!std::isnan(want[i])) want[i] = static_cast<float>(want[i]);
          }
          guarded_array<float> device_bias(s, bias);
          guarded_array<T> device_x(s, x), y(s, n);
          kd::cuda::bias_relu(s, pixels, channels, device_x.data(), has_bias ? device_bias.data() : nullptr, relu,
                              y.data());
          CHECK(equal_to_rounding(y.values(), want));
          kd::cuda::bias_relu(s, pixels, channels, device_x.data(), has_bias ? device_bias.data() : nullptr, relu,
                              device_x.data());
          CHECK(equal_to_rounding(device_x.values(), want));
        }
}

TEMPLATE_TEST_CASE("cuda flatten: features come in canonical order and go back", "[cuda][activation][flatten]", float,
                   bfloat16) {
  using T = TestType;
  const kd::cuda::stream s;
  // One pixel and one channel are copies; the others cut tiles of 32 and of up to 512 in every way.
  const kd::shape shapes[] = {
      kd::image_shape(3, 2, 4),   kd::image_shape(16, 8, 8),  kd::image_shape(1, 5, 3),   kd::image_shape(70, 1, 1),
      kd::image_shape(2, 32, 33), kd::image_shape(2, 1, 512), kd::image_shape(3, 18, 18), kd::image_shape(31, 3, 11),
      kd::image_shape(32, 4, 8),  kd::image_shape(33, 4, 8),  kd::image_shape(65, 5, 13), kd::image_shape(512, 1, 2),
      kd::image_shape(600, 1, 3), kd::image_shape(64, 2, 2),  kd::image_shape(0, 4, 4),   kd::image_shape(8, 16, 16)};
  for (const kd::shape& in : shapes)
    for (const std::size_t batch : {0u, 1u, 3u}) {
      CAPTURE(kd::text_of(in), batch);
      const std::size_t n = batch * in.size();
      const auto x = random_numbers<T>(n, 7);
      std::vector<float> want(n);
      for (std::size_t b = 0; b < batch; ++b)
        for (std::size_t c = 0; c < in.channels; ++c)
          for (std::size_t p = 0; p < in.pixels(); ++p)
            want[(b * in.channels + c) * in.pixels() + p] =
                kd::kernel::to_float(x[(b * in.pixels() + p) * in.channels + c]);
      guarded_array<T> device_x(s, x), back(s, n);
      guarded_array<float> y(s, n);
      kd::cuda::flatten_forward(s, in, batch, device_x.data(), y.data());
      CHECK(y.values() == want);
      kd::cuda::flatten_backward(s, in, batch, y.data(), back.data());
      CHECK(same_bits(back.values(), x));
    }
}

TEST_CASE("cuda flatten: the gradient is rounded to bfloat16", "[cuda][activation][flatten]") {
  const kd::cuda::stream s;
  const kd::shape in = kd::image_shape(6, 3, 3);
  const auto dy = kd_test::random_floats(2 * in.size(), 8);
  std::vector<double> want(dy.size());
  for (std::size_t b = 0; b < 2; ++b)
    for (std::size_t c = 0; c < 6; ++c)
      for (std::size_t p = 0; p < 9; ++p) want[(b * 9 + p) * 6 + c] = dy[(b * 6 + c) * 9 + p];
  guarded_array<float> device_dy(s, dy);
  guarded_array<bfloat16> dx(s, dy.size());
  kd::cuda::flatten_backward(s, in, 2, device_dy.data(), dx.data());
  CHECK(equal_to_rounding(dx.values(), want));
}
