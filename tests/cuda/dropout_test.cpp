#include "kd/cuda/dropout.hpp"

#include <cmath>
#include <cstdint>
#include <vector>

#include "kd/cpu/activation.hpp"
#include "support/catch.hpp"
#include "support/guarded_array.hpp"

namespace {

using kd::kernel::bfloat16;
using kd_test::guarded_array;
using kd_test::same_bits;

constexpr std::uint64_t seed = 0x123456789abcdefu;
constexpr std::uint32_t layer = 2;

/// What the CPU device makes of x, [sample][H][W][C].
std::vector<float> on_cpu(const kd::shape& shape, std::size_t batch, float p, std::uint32_t step,
                          const std::vector<float>& x) {
  constexpr std::size_t lanes = kd::cpu::lanes;
  const std::size_t size = shape.size();
  std::vector<float> blocked(kd::cpu::storage_size(shape, batch)), out(x.size());
  const auto at = [&](std::size_t n, std::size_t v) { return (n / lanes * size + v) * lanes + n % lanes; };
  for (std::size_t n = 0; n < batch; ++n)
    for (std::size_t v = 0; v < size; ++v) blocked[at(n, v)] = x[n * size + v];
  kd::cpu::dropout({1}, shape, batch, p, seed, step, layer, blocked.data(), blocked.data());
  for (std::size_t n = 0; n < batch; ++n)
    for (std::size_t v = 0; v < size; ++v) out[n * size + v] = blocked[at(n, v)];
  return out;
}

}  // namespace

TEMPLATE_TEST_CASE("cuda dropout: keeps what the CPU keeps, in place too", "[cuda][dropout]", float, bfloat16) {
  using T = TestType;
  const kd::cuda::stream s;
  // Rows, one channel and one pixel are in order; then pixels in fours; then the rest.
  const kd::shape shapes[] = {kd::row_shape(256),       kd::row_shape(4),          kd::row_shape(7),
                              kd::row_shape(1025),      kd::image_shape(1, 3, 3),  kd::image_shape(9, 1, 1),
                              kd::image_shape(3, 2, 2), kd::image_shape(16, 8, 8), kd::image_shape(33, 4, 5),
                              kd::image_shape(5, 3, 3), kd::image_shape(2, 1, 6),  kd::image_shape(4, 2, 3),
                              kd::image_shape(0, 2, 2)};
  for (const kd::shape& shape : shapes)
    for (const std::size_t batch : {0u, 1u, 3u, 5u})
      for (const float p : {0.0f, 0.1f, 0.5f, 1.0f}) {
        CAPTURE(kd::text_of(shape), batch, p);
        const auto x = kd_test::random_numbers<T>(batch * shape.size(), 4);
        // The CPU has multiplied in float; the rounding to T comes after it.
        const auto want = kd_test::rounded_to<T>(on_cpu(shape, batch, p, 21, kd_test::to_floats(x)));
        guarded_array<T> device_x(s, x), y(s, x.size()), apart(s, x.size(), 1);
        guarded_array<std::uint32_t> counter(s, std::vector<std::uint32_t>{17});
        kd::cuda::dropout(s, shape, batch, p, seed, 21, nullptr, layer, device_x.data(), y.data());
        CHECK(same_bits(y.values(), want));
        kd::cuda::dropout(s, shape, batch, p, seed, 4, counter.data(), layer, device_x.data(), apart.data());
        CHECK(same_bits(apart.values(), want));
        kd::cuda::dropout(s, shape, batch, p, seed, 21, nullptr, layer, device_x.data(), device_x.data());
        CHECK(same_bits(device_x.values(), want));
      }
}

TEST_CASE("cuda dropout: every element follows its own Philox word", "[cuda][dropout]") {
  const kd::cuda::stream s;
  for (const kd::shape& shape : {kd::row_shape(10), kd::image_shape(6, 2, 4), kd::image_shape(3, 3, 3)}) {
    const std::size_t batch = 3, pixels = shape.pixels(), channels = shape.channels;
    const std::vector<float> ones(batch * shape.size(), 1.0f);
    guarded_array<float> x(s, ones), y(s, ones.size());
    kd::cuda::dropout(s, shape, batch, 0.3f, seed, 5, nullptr, layer, x.data(), y.data());
    std::vector<float> want(ones.size());
    for (std::size_t n = 0; n < batch; ++n)
      for (std::size_t c = 0; c < channels; ++c)
        for (std::size_t p = 0; p < pixels; ++p) {
          const auto e = static_cast<std::uint32_t>((n * channels + c) * pixels + p);
          const std::uint32_t word = kd::random_at(seed, kd::random_stream::dropout, e / 4, 5, layer)[e % 4];
          want[(n * pixels + p) * channels + c] = kd::uniform(word) >= 0.3f ? 1.0f / (1.0f - 0.3f) : 0.0f;
        }
    CHECK(y.values() == want);
  }
}

TEST_CASE("cuda dropout: a word exactly at p is kept", "[cuda][dropout]") {
  const kd::cuda::stream s;
  const float p = kd::uniform(kd::random_at(1, kd::random_stream::dropout, 1, 0, 0)[2]);  // feature 6 of sample 0
  guarded_array<float> x(s, std::vector<float>(8, 1.0f)), y(s, 8);
  kd::cuda::dropout(s, kd::row_shape(8), 1, p, 1, 0, nullptr, 0, x.data(), y.data());
  CHECK(y.values()[6] > 0.0f);
  kd::cuda::dropout(s, kd::row_shape(8), 1, std::nextafter(p, 1.0f), 1, 0, nullptr, 0, x.data(), y.data());
  CHECK(y.values()[6] == 0.0f);
}

TEST_CASE("cuda dropout: a probability outside 0..1 is refused", "[cuda][dropout]") {
  const kd::cuda::stream s;
  guarded_array<float> x(s, 4);
  for (const float bad : {-0.1f, 1.5f, std::nanf("")})
    CHECK_THROWS_AS(kd::cuda::dropout(s, kd::row_shape(4), 1, bad, 0, 0, nullptr, 0, x.data(), x.data()),
                    kd::argument_error);
}
