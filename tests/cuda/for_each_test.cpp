#include "kd/cuda/for_each.hpp"

#include <cstdint>
#include <vector>

#include "support/catch.hpp"
#include "support/guarded_array.hpp"

namespace {

using kd_test::guarded_array;

/// y = x > 0 ? x : slope * x
struct leaky_relu {
  float slope;
  const float* x;
  float* y;

  KD_HOST_DEVICE void operator()(std::size_t i) const { y[i] = x[i] > 0.0f ? x[i] : slope * x[i]; }
};

struct count_calls {
  std::uint32_t* calls;

  KD_HOST_DEVICE void operator()(std::size_t i) const { calls[i] += 1; }
};

}  // namespace

TEST_CASE("cuda for_each: calls a user's function once for every index", "[cuda][for_each]") {
  const kd::cuda::stream s;
  for (const std::size_t n : {0u, 1u, 255u, 256u, 257u, 1031u}) {
    CAPTURE(n);
    guarded_array<std::uint32_t> calls(s, std::vector<std::uint32_t>(n));
    kd::cuda::for_each(s, n, count_calls{calls.data()});
    kd::cuda::for_each(s, n, count_calls{calls.data()});
    CHECK(calls.values() == std::vector<std::uint32_t>(n, 2));
    const auto x = kd_test::random_floats(n, 1);
    guarded_array<float> device_x(s, x), y(s, n);
    kd::cuda::for_each(s, n, leaky_relu{0.25f, device_x.data(), y.data()});
    std::vector<float> want;
    for (const float value : x) want.push_back(value > 0.0f ? value : 0.25f * value);
    CHECK(y.values() == want);
  }
}

TEST_CASE("cuda for_each: the same function on the host", "[cuda][for_each]") {
  const auto x = kd_test::random_floats(5, 1);
  std::vector<float> y(5);
  const leaky_relu function{0.5f, x.data(), y.data()};
  for (std::size_t i = 0; i < 5; ++i) function(i);
  CHECK(y[0] == (x[0] > 0.0f ? x[0] : 0.5f * x[0]));
}
