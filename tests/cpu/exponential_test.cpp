#include "kd/cpu/exponential.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kd/core/random.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();

/// The unit of the true value's last place as a float.
double ulp(double want) {
  const auto nearest = static_cast<float>(want);
  return double{std::nextafter(nearest, inf)} - nearest;
}

template <std::size_t Width>
float exp_at(float x, const kd::cpu::exponential_scale& scale) {
  const auto v = kd::cpu::exp_nonpositive<Width>(kd::cpu::detail::splat<Width>(x), scale);
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
  // A product that is not contracted into an FMA (none in hardware, or -O1) adds its rounding, 2^-24 |x| relative,
  // which is up to |x| ulp.
  for (const float temperature : {0.05f, 1.0f, 1.01f, 2.0f, 100.0f}) {
    const kd::cpu::exponential_scale scale(temperature);
    kd_test::comparison exp2s("2^x"), exps("e^(x / T)");
    for (std::uint32_t i = 0; i < 10000; ++i) {
      const float x = scale.underflow * kd::uniform(kd::random_at(3, kd::random_stream::synthetic_data, i)[0]);
      const float got = exp_at<Width>(x, scale);
      const double want = std::exp2(double{x} * scale.log2e_over_t);
      exp2s.add(got, want, (2.1 + std::abs(double{x} * scale.log2e_over_t)) * ulp(want));
      // The scale itself is a float: exp(x / T) to a relative 2^-24 |x / T| more.
      exps.add(got, std::exp(double{x} / temperature), (2.4e-7 + 1.3e-7 * std::abs(double{x} / temperature)) * want);
    }
    REQUIRE(exp2s);
    REQUIRE(exps);
    REQUIRE(exp_at<Width>(0.0f, scale) == 1.0f);
    REQUIRE(exp_at<Width>(-0.0f, scale) == 1.0f);
    REQUIRE(exp_at<Width>(scale.underflow, scale) >= std::numeric_limits<float>::min());
    REQUIRE(exp_at<Width>(scale.zero, scale) == 0.0f);
    REQUIRE(exp_at<Width>(2 * scale.zero, scale) == 0.0f);
    REQUIRE(exp_at<Width>(-1e30f, scale) == 0.0f);
    REQUIRE(exp_at<Width>(-inf, scale) == 0.0f);
    REQUIRE(std::isnan(exp_at<Width>(std::numeric_limits<float>::quiet_NaN(), scale)));
  }
  kd_test::comparison logs("log");
  for (std::uint32_t i = 0; i < 40000; ++i) {
    const auto words = kd::random_at(4, kd::random_stream::synthetic_data, i);
    const float x = std::exp2(30 * kd::uniform(words[0]) - 10) * (1 + kd::uniform(words[1]));
    // Near 1 the logarithm is small and its own ulp finer than the argument's effect; measured against 2^-24 there.
    const double want = std::log(double{x});
    logs.add(log_at<Width>(x), want, 2.5e-7 * std::max(std::abs(want), 0x1p-4));
  }
  REQUIRE(logs);

  REQUIRE(log_at<Width>(1.0f) == 0.0f);
  REQUIRE(std::isnan(log_at<Width>(std::numeric_limits<float>::quiet_NaN())));
}

}  // namespace

TEST_CASE("exponential: exp and log are within 2.1 ulp of float64, with exact ends, at every width",
          "[cpu][exponential]") {
  check_width<1>();
  check_width<4>();
  if constexpr (kd::cpu::native_width >= 8) check_width<(kd::cpu::native_width >= 8 ? 8 : 4)>();
  if constexpr (kd::cpu::native_width >= 16) check_width<(kd::cpu::native_width >= 16 ? 16 : 4)>();
}

TEST_CASE("exponential: folds over lanes see every lane", "[cpu][exponential]") {
  constexpr std::size_t width = kd::cpu::native_width;
  for (std::size_t l = 0; l < width; ++l) {
    auto v = kd::cpu::detail::splat<width>(-3.0f);
    v[l] = 5.0f;
    REQUIRE(kd::cpu::detail::largest_lane<width>(v) == 5.0f);
    REQUIRE(kd::cpu::detail::sum_of_lanes<width>(v) == 5.0f - 3.0f * static_cast<float>(width - 1));
  }
}
