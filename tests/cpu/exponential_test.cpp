#include "kd/cpu/exponential.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kd/core/random.hpp"
#include "support/catch.hpp"

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();

/// Distance of `got` from the true value in units of the true value's last place.
double ulps(float got, double want) {
  const auto nearest = static_cast<float>(want);
  const double unit = double{std::nextafter(nearest, inf)} - nearest;
  return std::abs(got - want) / unit;
}

template <std::size_t Width>
float exp_at(float x) {
  const auto v = kd::cpu::exp_nonpositive<Width>(kd::cpu::detail::splat<Width>(x));
  for (std::size_t l = 1; l < Width; ++l)
    REQUIRE(std::memcmp(&v, reinterpret_cast<const float*>(&v) + l, sizeof(float)) == 0);
  return v[0];
}
template <std::size_t Width>
float log_at(float x) {
  return kd::cpu::log_positive<Width>(kd::cpu::detail::splat<Width>(x))[0];
}

template <std::size_t Width>
void check_width() {
  // 2^-126 is where results leave the normal floats; the last fraction of a power below is allowed to flush.
  double worst = 0;
  for (std::uint32_t i = 0; i < 40000; ++i) {
    const float x = -87.3f * kd::uniform(kd::random_at(3, kd::random_stream::synthetic_data, i)[0]);
    worst = std::max(worst, ulps(exp_at<Width>(x), std::exp(double{x})));
  }
  REQUIRE(!(worst > 2));
  double worst_log = 0;
  for (std::uint32_t i = 0; i < 40000; ++i) {
    const auto words = kd::random_at(4, kd::random_stream::synthetic_data, i);
    const float x = std::exp2(30 * kd::uniform(words[0]) - 10) * (1 + kd::uniform(words[1]));
    // Near 1 the logarithm is small and its own ulp finer than the argument's effect; measured against 2^-24 there.
    const double want = std::log(double{x}), error = std::abs(log_at<Width>(x) - want);
    worst_log = std::max(worst_log, error / std::max(std::abs(want), 0x1p-4));
  }
  REQUIRE(!(worst_log > 2.5e-7));

  REQUIRE(exp_at<Width>(0.0f) == 1.0f);
  REQUIRE(exp_at<Width>(-0.0f) == 1.0f);
  REQUIRE(exp_at<Width>(-inf) == 0.0f);
  REQUIRE(exp_at<Width>(-88.0f) == 0.0f);
  REQUIRE(exp_at<Width>(-89.0f) == 0.0f);
  REQUIRE(exp_at<Width>(-1e30f) == 0.0f);
  REQUIRE(exp_at<Width>(-87.0f) > 0.0f);
  REQUIRE(std::isnan(exp_at<Width>(std::numeric_limits<float>::quiet_NaN())));
  REQUIRE(log_at<Width>(1.0f) == 0.0f);
  REQUIRE(std::isnan(log_at<Width>(std::numeric_limits<float>::quiet_NaN())));
}

}  // namespace

TEST_CASE("exponential: exp and log are within 2 ulp of float64, with exact ends, at every width",
          "[cpu][exponential]") {
  check_width<1>();
  check_width<4>();
  if constexpr (kd::cpu::float_vector_width >= 8) check_width<(kd::cpu::float_vector_width >= 8 ? 8 : 4)>();
  if constexpr (kd::cpu::float_vector_width >= 16) check_width<(kd::cpu::float_vector_width >= 16 ? 16 : 4)>();
}

TEST_CASE("exponential: folds over lanes see every lane", "[cpu][exponential]") {
  constexpr std::size_t width = kd::cpu::float_vector_width;
  for (std::size_t l = 0; l < width; ++l) {
    auto v = kd::cpu::detail::splat<width>(-3.0f);
    v[l] = 5.0f;
    REQUIRE(kd::cpu::detail::largest_lane<width>(v) == 5.0f);
    REQUIRE(kd::cpu::detail::sum_of_lanes<width>(v) == 5.0f - 3.0f * static_cast<float>(width - 1));
  }
}
