#include "kd/cuda/reduce.hpp"

#include <cmath>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded_array.hpp"

namespace {

using kd::kernel::bfloat16;
using kd_test::guarded_array;
using kd_test::same_bits;

/// The sum on the device, with guards around output and scratch.
std::vector<double> sum(const kd::cuda::stream& s, const std::vector<float>& x, std::size_t shift = 0) {
  guarded_array<float> device_x(s, x, shift);
  guarded_array<double> out(s, 1), scratch(s, kd::cuda::sum_scratch(x.size()));
  kd::cuda::sum(s, x.size(), device_x.data(), out.data(), scratch.data());
  scratch.values();
  return out.values();
}

template <class T>
std::vector<float> column_sums(const kd::cuda::stream& s, std::size_t rows, std::size_t columns,
                               const std::vector<T>& x, std::size_t shift = 0) {
  guarded_array<T> device_x(s, x, shift);
  guarded_array<float> out(s, columns), scratch(s, kd::cuda::column_sums_scratch(rows, columns));
  kd::cuda::column_sums(s, rows, columns, device_x.data(), out.data(), scratch.data());
  scratch.values();
  return out.values();
}

}  // namespace

TEST_CASE("cuda sum: matches float64, the same bits twice", "[cuda][reduce]") {
  const kd::cuda::stream s;
  for (const std::size_t n : {0u, 1u, 3u, 4u, 5u, 31u, 255u, 1024u, 1027u, 4095u, 4096u, 4097u, 8193u, 13003u})
    for (const std::size_t shift : {0u, 1u}) {
      CAPTURE(n, shift);
      const auto x = kd_test::random_floats(n, 1);
      double want = 0, size = 0;
      for (const float value : x) {
        want += value;
        size += std::abs(value);
      }
      const auto got = sum(s, x, shift);
      CHECK(kd_test::near(got.at(0), want, {.absolute = 1e-14 * size}));
      CHECK(same_bits(sum(s, x, shift), got));
    }
}

TEST_CASE("cuda sum: more elements than the first launch has blocks for", "[cuda][reduce]") {
  const kd::cuda::stream s;
  CHECK(kd::cuda::sum_scratch(std::size_t{1} << 33) <= 1024);
  CHECK(kd::cuda::sum_scratch(4096) == 1);
  CHECK(kd::cuda::sum_scratch(4097) == 2);
  // 301 blocks, so that a thread of the second launch adds two partial sums.
  const std::size_t n = 300 * 4096 + 1;
  std::vector<float> x(n, 0.5f);
  x[n - 1] = 3.0f;
  CHECK(sum(s, x)[0] == 150.0 * 4096 + 3);
}

TEMPLATE_TEST_CASE("cuda column_sums: match float64, the same bits twice", "[cuda][reduce]", float, bfloat16) {
  using T = TestType;
  const kd::cuda::stream s;
  for (const std::size_t columns : {0u, 1u, 3u, 4u, 8u, 10u, 16u, 32u, 33u, 64u, 100u, 264u, 272u})
    for (const std::size_t rows : {0u, 1u, 2u, 7u, 127u, 128u, 129u, 300u}) {
      CAPTURE(columns, rows);
      const auto x = kd_test::random_numbers<T>(rows * columns, 2);
      std::vector<double> want(columns), size(columns);
      for (std::size_t i = 0; i < x.size(); ++i) {
        want[i % columns] += kd::kernel::to_float(x[i]);
        size[i % columns] += std::abs(kd::kernel::to_float(x[i]));
      }
      const auto got = column_sums(s, rows, columns, x);
      REQUIRE(got.size() == columns);
      kd_test::comparison sums("column");
      // Up to 2 + log2(256) roundings in a row to 24 bits for each of two launches.
      for (std::size_t c = 0; c < columns; ++c) sums.add(got[c], want[c], 1e-6 * size[c]);
      CHECK(sums.or_nothing());
      CHECK(same_bits(column_sums(s, rows, columns, x), got));
    }
  // Off the alignment: one number per access.
  const auto ones = kd_test::rounded_to<T>(std::vector<float>(130 * 16, 1.0f));
  CHECK(column_sums(s, 130, 16, ones, 1) == std::vector<float>(16, 130.0f));
}

TEST_CASE("cuda column_sums: more rows than parts", "[cuda][reduce]") {
  const kd::cuda::stream s;
  CHECK(kd::cuda::column_sums_scratch(128, 10) == 0);
  CHECK(kd::cuda::column_sums_scratch(129, 10) == 20);
  CHECK(kd::cuda::column_sums_scratch(std::size_t{1} << 31, 10) == 5120);
  // 70,000 rows are 511 parts of 137.
  const std::vector<float> x(70000 * 2, 0.25f);
  CHECK(column_sums(s, 70000, 2, x) == std::vector<float>(2, 17500.0f));
}
