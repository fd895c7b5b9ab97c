#include "kd/cuda/cast.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/guarded_array.hpp"

namespace {

using kd::kernel::bfloat16;
using kd_test::guarded_array;
using kd_test::same_bits;

// Below, at and above a vector of 8 and a block of 256 vectors.
const std::size_t sizes[] = {0, 1, 7, 8, 9, 15, 2047, 2048, 2049, 2055};

/// The bfloat16 that lies nearest to x, the even one of two, by arithmetic in float64.
std::uint16_t nearest_bfloat16(float x) {
  const bool negative = std::signbit(x);
  const double size = std::abs(double{x});
  std::uint32_t magnitude = 0x7f80;  // infinity
  if (!std::isinf(size)) {
    // Units of the last of 8 bits; below 2^-126 they stay at 2^-133.
    const int exponent = size == 0 ? -126 : std::max(std::ilogb(size), -126);
    const double units = std::nearbyint(std::ldexp(size, 7 - exponent));
    // The exponent's field is one less where the leading bit is there, which adds the one; a carry does the rest.
    magnitude = static_cast<std::uint32_t>(units) + (static_cast<std::uint32_t>(exponent + 126) << 7);
    if (magnitude > 0x7f80) magnitude = 0x7f80;
  }
  return static_cast<std::uint16_t>(magnitude | (negative ? 0x8000u : 0u));
}

}  // namespace

TEST_CASE("cuda cast: float to bfloat16 takes the nearest, the even one of two", "[cuda][cast]") {
  const kd::cuda::stream s;
  constexpr float infinite = std::numeric_limits<float>::infinity();
  const float edges[] = {0.0f,          -0.0f,        1.0f,      0x1.01p0f,   0x1.03p0f, 0x1.010002p0f,
                         0x1.00fffep0f, -0x1.01p0f,   infinite,  -infinite,   3.4e38f,   3.3961775e38f,
                         1e-45f,        0x1p-126f,    0x1p-133f, 0x1.8p-133f, 0x1p-134f, -0x1.fffffep-127f,
                         0x1.ffp5f,     0x1.fefffep5f};
  for (const std::size_t n : sizes)
    for (const std::size_t shift : {0u, 1u}) {
      CAPTURE(n, shift);
      auto x = kd_test::random_floats(n, 1);
      for (std::size_t i = 0; i < std::size(edges) && i < n; ++i) x[i] = edges[i];
      guarded_array<float> from(s, x);
      guarded_array<bfloat16> to(s, n, shift);
      kd::cuda::cast(s, n, from.data(), to.data());
      const auto got = to.values();
      std::size_t wrong = 0;
      for (std::size_t i = 0; i < n; ++i) wrong += got[i].bits != nearest_bfloat16(x[i]);
      CHECK(wrong == 0);
    }
}

TEST_CASE("cuda cast: a NaN stays one, whatever its fraction", "[cuda][cast]") {
  const kd::cuda::stream s;
  // The last of these would round to minus zero, the second to infinity.
  for (const std::uint32_t bits : {0x7fc00000u, 0x7f800001u, 0xff807fffu, 0xffffffffu, 0x7fffffffu}) {
    CAPTURE(bits);
    guarded_array<float> from(s, std::vector<float>(9, kd::kernel::bits_to_float(bits)));
    guarded_array<bfloat16> to(s, std::vector<bfloat16>(9));
    kd::cuda::cast(s, 9, from.data(), to.data());
    for (const bfloat16 value : to.values()) CHECK(std::isnan(kd::kernel::to_float(value)));
  }
}

TEST_CASE("cuda cast: bfloat16 to float is exact, and there and back the same", "[cuda][cast]") {
  const kd::cuda::stream s;
  for (const std::size_t n : sizes)
    for (const std::size_t shift : {0u, 1u}) {
      CAPTURE(n, shift);
      const auto x = kd_test::random_numbers<bfloat16>(n, 2);
      guarded_array<bfloat16> from(s, x, shift), back(s, n), copy(s, n);
      guarded_array<float> to(s, n);
      kd::cuda::cast(s, n, from.data(), to.data());
      std::vector<float> want(n);
      for (std::size_t i = 0; i < n; ++i) {
        const int exponent = x[i].bits >> 7 & 0xff, fraction = x[i].bits & 0x7f;
        const float size = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -133)
                                         : std::ldexp(static_cast<float>(128 + fraction), exponent - 134);
        want[i] = x[i].bits >> 15 ? -size : size;
      }
      CHECK(to.values() == want);
      kd::cuda::cast(s, n, to.data(), back.data());
      CHECK(same_bits(back.values(), x));
      kd::cuda::cast(s, n, from.data(), copy.data());
      CHECK(same_bits(copy.values(), x));
    }
}
