#include "kd/cpu/detail/logit_formats.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "support/catch.hpp"

namespace {

using namespace kd::cpu::detail;

/// What the bits of a 16-bit number mean, by its definition.
double meaning(std::uint32_t bits, int fraction_bits) {
  const int exponent_bits = 15 - fraction_bits, bias = (1 << (exponent_bits - 1)) - 1;
  const double sign = bits & 0x8000 ? -1 : 1;
  const int exponent = static_cast<int>(bits & 0x7fff) >> fraction_bits;
  const double fraction = static_cast<double>(bits & ((1u << fraction_bits) - 1)) / (1 << fraction_bits);
  if (exponent == (1 << exponent_bits) - 1) return fraction == 0 ? sign * INFINITY : NAN;
  return exponent == 0 ? sign * std::ldexp(fraction, 1 - bias) : sign * std::ldexp(1 + fraction, exponent - bias);
}

template <std::size_t Width, class Format>
std::uint16_t stored(float x) {
  Format out[Width];
  float in[Width];
  std::fill_n(in, Width, x);  // splat would lose the sign of -0
  store_logits<Width>(out, load<Width>(in));
  for (std::size_t i = 1; i < Width; ++i) REQUIRE(out[i].bits == out[0].bits);
  return out[0].bits;
}

template <class Format>
void check_all(int fraction_bits) {
  constexpr std::size_t width = kd::cpu::native_width;
  std::size_t wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    Format in[width];
    for (Format& x : in) x.bits = static_cast<std::uint16_t>(bits);
    const double want = meaning(bits, fraction_bits);
    const auto same = [&](float got) { return std::isnan(want) ? std::isnan(got) : double{got} == want; };
    wrong += !same(to_float(in[0])) || !same(load<width>(in)[width - 1]) || !same(load<1>(in)[0]);
    if (std::isnan(want)) {
      wrong += !std::isnan(to_float(from_float<Format>(std::numeric_limits<float>::quiet_NaN())));
      continue;
    }
    const auto back = static_cast<float>(want);
    wrong += from_float<Format>(back).bits != bits || stored<width, Format>(back) != bits;
  }
  REQUIRE(wrong == 0);
}

/// Numbers between two neighbours go to the nearer, and from the middle to the even one.
template <class Format>
void check_rounding() {
  constexpr std::size_t width = kd::cpu::native_width;
  std::size_t wrong = 0;
  for (std::uint32_t bits = 0; bits + 1 < 0x7fff; ++bits) {
    const double low = to_float(Format{static_cast<std::uint16_t>(bits)});
    const double high = to_float(Format{static_cast<std::uint16_t>(bits + 1)});
    if (!std::isfinite(high)) break;
    const auto middle = static_cast<float>((low + high) / 2);  // exact in float
    const std::uint32_t even = bits % 2 == 0 ? bits : bits + 1;
    const auto check = [&](float x, std::uint32_t want) {
      wrong += from_float<Format>(x).bits != want || stored<width, Format>(x) != want;
      wrong += from_float<Format>(-x).bits != (want | 0x8000);
    };
    check(middle, even);
    check(std::nextafter(middle, INFINITY), bits + 1);
    check(std::nextafter(middle, 0.0f), bits);
  }
  REQUIRE(wrong == 0);
}

}  // namespace

TEST_CASE("logit formats: every 16-bit number is the float that it means, and back", "[cpu][logit_formats]") {
  check_all<bfloat16>(7);
  check_all<float16>(10);
}

TEST_CASE("logit formats: floats are rounded to nearest, ties to even", "[cpu][logit_formats]") {
  check_rounding<bfloat16>();
  check_rounding<float16>();
}

TEST_CASE("logit formats: beyond the largest float16 is infinity, from where the next would begin",
          "[cpu][logit_formats]") {
  REQUIRE(from_float<float16>(65519.99f).bits == 0x7bff);
  REQUIRE(from_float<float16>(65520.0f).bits == 0x7c00);
  REQUIRE(from_float<float16>(-1e30f).bits == 0xfc00);
  REQUIRE(from_float<float16>(INFINITY).bits == 0x7c00);
  REQUIRE(from_float<bfloat16>(std::numeric_limits<float>::max()).bits == 0x7f80);
  REQUIRE(std::isnan(to_float(from_float<float16>(NAN))));
  REQUIRE(std::isnan(to_float(from_float<bfloat16>(std::bit_cast<float>(0x7f800001u)))));
}
