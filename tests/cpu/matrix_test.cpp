/// The matrix product beneath the convolutions: every tile size, every width, chunked sums, strides and updates.
#include "kd/cpu/matrix.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "cpu/conv2d_reference.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"

namespace {

using kd::cpu::product;
using kd::cpu::product_strides;
using kd_test::aligned_floats;

struct run {
  std::size_t a, b, count;  // offsets into the operands, and how many k
};

/// Multiplies over `runs` with `width`-float vectors and compares with float64.
template <std::size_t Width>
void check(std::size_t rows, std::size_t vectors, const std::vector<run>& runs, bool accumulate, bool bias, bool relu) {
  constexpr std::size_t longest = 700;
  const product_strides s{longest + 3, 1, vectors * 16 + 16, 16, vectors * 32, 32};
  INFO("width " << Width << ", rows " << rows << ", vectors " << vectors << ", runs " << runs.size());
  const aligned_floats a = kd_test::noisy(1, rows * s.a_row), b = kd_test::noisy(2, longest * s.b_k);
  const aligned_floats added = kd_test::noisy(3, rows);
  aligned_floats c = kd_test::noisy(4, rows * s.c_row);
  std::vector<double> want(c.begin(), c.end());
  std::size_t total = 0;
  for (const run& r : runs) total += r.count;
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t v = 0; v < vectors; ++v)
      for (std::size_t l = 0; l < 16; ++l) {
        double sum = accumulate ? want[i * s.c_row + v * s.c_v + l] : 0.0;
        for (const run& r : runs)
          for (std::size_t k = 0; k < r.count; ++k)
            sum += static_cast<double>(a[i * s.a_row + (r.a + k) * s.a_k]) *
                   static_cast<double>(b[(r.b + k) * s.b_k + v * s.b_v + l]);
        if (bias) sum += static_cast<double>(added[i]);
        want[i * s.c_row + v * s.c_v + l] = relu ? std::max(sum, 0.0) : sum;
      }
  product<Width> sums(s, rows, vectors, total, c.data(), {accumulate, bias ? added.data() : nullptr, relu});
  for (const run& r : runs) sums.add(a.data() + r.a * s.a_k, b.data() + r.b * s.b_k, r.count);
  sums.finish();
  // K * 2^-24 at worst for K = 700 products below 1, relative to sums of about sqrt(700) / 3; the floats between the
  // vectors of C are part of the comparison and must be untouched.
  CHECK(kd_test::near(c, want, {.of_largest = 2e-6}));
}

template <std::size_t Width>
void check_tiles() {
  for (std::size_t rows = 1; rows <= 19; ++rows)
    for (std::size_t vectors = 1; vectors <= kd::cpu::vectors_at_once<Width>; ++vectors)
      check<Width>(rows, vectors, {{0, 0, 3}, {5, 9, 1}, {7, 2, 4}}, rows % 2 == 0, rows % 3 == 0, rows % 5 == 0);
}

}  // namespace

TEST_CASE("matrix: every tile of every width matches the float64 definition", "[cpu][matrix]") {
  check_tiles<16>();
  check_tiles<8>();
  check_tiles<4>();
  check_tiles<1>();
}

TEST_CASE("matrix: sums of any length and number of segments are whole", "[cpu][matrix]") {
  constexpr std::size_t width = kd::cpu::native_width, vectors = kd::cpu::vectors_at_once<width>;
  for (const std::size_t count : {1, 191, 192, 193, 384, 385, 700})
    check<width>(7, vectors, {{0, 0, count}}, true, true, false);
  std::vector<run> many;
  for (std::size_t i = 0; i < 150; ++i) many.push_back({i, 3 * i, 1 + i % 5});
  check<width>(13, vectors, many, false, true, true);
  check<width>(5, 1, {{0, 0, 300}, {310, 1, 2}, {320, 40, 380}}, false, false, false);
}

TEST_CASE("matrix: an empty sum leaves what the update makes of nothing", "[cpu][matrix]") {
  check<kd::cpu::native_width>(3, 1, {}, false, false, false);
  check<kd::cpu::native_width>(3, 1, {}, true, true, true);
}

TEST_CASE("matrix: relu keeps NaN", "[cpu][matrix]") {
  aligned_floats a(1, std::nanf("")), b(16, 1), c(16);
  product<kd::cpu::native_width> sums({1, 1, 16, 16, 16, 16}, 1, 1, 1, c.data(), {false, nullptr, true});
  sums.add(a.data(), b.data(), 1);
  sums.finish();
  for (const float value : c) CHECK(std::isnan(value));
}
