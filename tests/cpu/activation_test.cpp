#include "kd/cpu/activation.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"

namespace {

using kd::cpu::lanes;

std::vector<float> random_floats(std::size_t n, std::uint32_t draw) {
  std::vector<float> v(n);
  for (std::size_t i = 0; i < n; ++i)
    v[i] =
        kd::uniform(kd::random_at(3, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i), draw)[0]) - 0.5f;
  return v;
}

const std::size_t sizes[] = {0, 1, 15, 16, 17, 33, 160, 1601};

}  // namespace

TEST_CASE("relu: forward and backward match the definition, in place too", "[cpu][activation]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const std::size_t n : sizes)
    for (const int threads : {1, 2}) {
      CAPTURE(n, threads);
      auto x = random_floats(n, 1);
      const auto dy = random_floats(n, 2);
      if (n > 2) x[2] = 0.0f;
      std::vector<float> y(n, 9.0f), dx(n, 9.0f), want_y(n), want_dx(n);
      for (std::size_t i = 0; i < n; ++i) {
        want_y[i] = x[i] > 0 ? x[i] : 0.0f;
        want_dx[i] = x[i] > 0 ? dy[i] : 0.0f;
      }
      kd::cpu::relu_forward({threads}, n, x.data(), y.data());
      CHECK(y == want_y);
      kd::cpu::relu_backward({threads}, n, y.data(), dy.data(), dx.data());
      CHECK(dx == want_dx);
      auto in_place = x, gradient = dy;
      kd::cpu::relu_forward({threads}, n, in_place.data(), in_place.data());
      CHECK(in_place == want_y);
      kd::cpu::relu_backward({threads}, n, y.data(), gradient.data(), gradient.data());
      CHECK(gradient == want_dx);
    }
  // A NaN must reach the loss, which names it.
  std::vector<float> poisoned(17, nan);
  kd::cpu::relu_forward({1}, 17, poisoned.data(), poisoned.data());
  CHECK((std::isnan(poisoned[0]) && std::isnan(poisoned[16])));
}

TEST_CASE("add: sums two arrays, in place too", "[cpu][activation]") {
  for (const std::size_t n : sizes) {
    const auto a = random_floats(n, 1), b = random_floats(n, 2);
    std::vector<float> y(n, 9.0f), want(n), twice(n);
    for (std::size_t i = 0; i < n; ++i) {
      want[i] = a[i] + b[i];
      twice[i] = a[i] + a[i];
    }
    kd::cpu::add({2}, n, a.data(), b.data(), y.data());
    CHECK(y == want);
    y = a;
    kd::cpu::add({2}, n, y.data(), b.data(), y.data());
    CHECK(y == want);
    y = b;
    kd::cpu::add({1}, n, a.data(), y.data(), y.data());
    CHECK(y == want);
    y = a;
    kd::cpu::add({2}, n, y.data(), y.data(), y.data());
    CHECK(y == twice);
  }
}

TEST_CASE("dropout: every element follows its own Philox word", "[cpu][activation][dropout]") {
  const kd::shape shapes[] = {kd::row_shape(256),       kd::row_shape(4),         kd::row_shape(7),
                              kd::image_shape(3, 2, 2), kd::image_shape(5, 3, 3), kd::image_shape(2, 1, 6),
                              kd::image_shape(4, 2, 3)};
  for (const kd::shape& s : shapes)
    for (const std::size_t batch : {1, 15, 17, 33})
      for (const float p : {0.0f, 0.1f, 0.5f, 1.0f}) {
        CAPTURE(kd::text_of(s), batch, p);
        auto x = random_floats(kd::cpu::storage_size(s, batch), 4);
        std::vector<float> want(x.size()), y(x.size(), 9.0f), two(x.size(), 9.0f);
        for (std::size_t n = 0; n < kd::cpu::blocks_of(batch) * lanes; ++n)
          for (std::size_t c = 0; c < s.channels; ++c)
            for (std::size_t h = 0; h < s.height; ++h)
              for (std::size_t w = 0; w < s.width; ++w) {
                const std::size_t at =
                    (((n / lanes * s.height + h) * s.width + w) * s.channels + c) * lanes + n % lanes;
                if (n >= batch) x[at] = 0.0f;
                const std::size_t e = n * s.size() + (c * s.height + h) * s.width + w;
                const auto word = kd::random_at(0x123456789abcdefu, kd::random_stream::dropout,
                                                static_cast<std::uint32_t>(e / 4), 21, 2)[e % 4];
                want[at] = kd::uniform(word) >= p ? x[at] * (1.0f / (1.0f - p)) : 0.0f;
              }
        kd::cpu::dropout({1}, s, batch, p, 0x123456789abcdefu, 21, 2, x.data(), y.data());
        CHECK(y == want);
        kd::cpu::dropout({2}, s, batch, p, 0x123456789abcdefu, 21, 2, x.data(), two.data());
        CHECK(two == want);
        kd::cpu::dropout({2}, s, batch, p, 0x123456789abcdefu, 21, 2, x.data(), x.data());
        CHECK(x == want);
      }
}

TEST_CASE("dropout: a word exactly at p is kept", "[cpu][activation][dropout]") {
  const kd::shape s = kd::row_shape(8);
  const auto word = kd::random_at(1, kd::random_stream::dropout, 1, 0, 0)[2];  // feature 6 of sample 0
  const float p = kd::uniform(word);
  std::vector<float> x(kd::cpu::storage_size(s, 1), 1.0f), y(x.size());
  kd::cpu::dropout({1}, s, 1, p, 1, 0, 0, x.data(), y.data());
  CHECK(y[6 * lanes] > 0.0f);
  kd::cpu::dropout({1}, s, 1, std::nextafter(p, 1.0f), 1, 0, 0, x.data(), y.data());
  CHECK(y[6 * lanes] == 0.0f);
}

TEST_CASE("dropout: zeroes a share p and keeps the mean", "[cpu][activation][dropout]") {
  const kd::shape s = kd::row_shape(1024);
  const std::size_t batch = 64;
  std::vector<float> x(kd::cpu::storage_size(s, batch), 1.0f), y(x.size());
  kd::cpu::dropout({2}, s, batch, 0.1f, 99, 5, 1, x.data(), y.data());
  double kept = 0, sum = 0;
  for (const float v : y) {
    kept += v != 0;
    sum += v;
  }
  const double n = static_cast<double>(y.size());
  // Four standard deviations of a binomial share.
  CHECK(kd_test::near(kept / n, 0.9, {.absolute = 4 * std::sqrt(0.09 / n)}));
  CHECK(kd_test::near(sum / n, 1, {.absolute = 4 * std::sqrt(0.09 / n) / 0.9}));
}

TEST_CASE("dropout: a probability outside 0..1 is refused", "[cpu][activation][dropout]") {
  float x[64] = {};
  for (const float bad : {-0.1f, 1.5f, std::nanf("")})
    CHECK_THROWS_AS(kd::cpu::dropout({1}, kd::row_shape(4), 1, bad, 0, 0, 0, x, x), kd::argument_error);
}

TEST_CASE("flatten: features come in canonical order and go back", "[cpu][activation][flatten]") {
  const kd::shape shapes[] = {kd::image_shape(3, 2, 4), kd::image_shape(16, 8, 8), kd::image_shape(1, 5, 3)};
  for (const kd::shape& s : shapes)
    for (const std::size_t batch : {1, 17, 33})
      for (const int threads : {1, 2}) {
        CAPTURE(kd::text_of(s), batch, threads);
        const auto x = random_floats(kd::cpu::storage_size(s, batch), 6);
        std::vector<float> want(x.size()), y(x.size(), 9.0f), back(x.size(), 9.0f);
        for (std::size_t b = 0; b < kd::cpu::blocks_of(batch); ++b)
          for (std::size_t c = 0; c < s.channels; ++c)
            for (std::size_t h = 0; h < s.height; ++h)
              for (std::size_t w = 0; w < s.width; ++w)
                for (std::size_t l = 0; l < lanes; ++l)
                  want[(b * s.size() + (c * s.height + h) * s.width + w) * lanes + l] =
                      x[(((b * s.height + h) * s.width + w) * s.channels + c) * lanes + l];
        kd::cpu::flatten_forward({threads}, s, batch, x.data(), y.data());
        CHECK(y == want);
        kd::cpu::flatten_backward({threads}, s, batch, y.data(), back.data());
        CHECK(back == x);
      }
}
