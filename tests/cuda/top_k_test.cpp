#include "kd/cuda/top_k.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "support/catch.hpp"
#include "support/guarded_array.hpp"

namespace {

using kd_test::guarded_array;
using counts = std::vector<std::uint64_t>;

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
constexpr float infinite = std::numeric_limits<float>::infinity();

counts count(const kd::cuda::stream& s, std::size_t rows, std::size_t classes, const std::vector<float>& logits,
             const std::vector<std::int32_t>& labels, std::size_t k, const counts& before = {0, 0}) {
  guarded_array<float> device_logits(s, logits);
  guarded_array<std::int32_t> device_labels(s, labels);
  guarded_array<std::uint64_t> result(s, before);
  kd::cuda::count_top_k(s, rows, classes, device_logits.data(), device_labels.data(), k, result.data());
  return result.values();
}

/// By sorting each row, the largest first and of equals the first class first.
counts by_sorting(std::size_t rows, std::size_t classes, const std::vector<float>& logits,
                  const std::vector<std::int32_t>& labels, std::size_t k) {
  counts result{0, 0};
  for (std::size_t r = 0; r < rows; ++r) {
    std::vector<std::int32_t> order(classes);
    std::iota(order.begin(), order.end(), 0);
    const float* const row = logits.data() + r * classes;
    std::sort(order.begin(), order.end(),
              [&](std::int32_t a, std::int32_t b) { return row[a] > row[b] || (row[a] == row[b] && a < b); });
    const auto place = std::find(order.begin(), order.end(), labels[r]) - order.begin();
    result[0] += place == 0;
    result[1] += static_cast<std::size_t>(place) < k;
  }
  return result;
}

}  // namespace

TEST_CASE("cuda count_top_k: counts as sorting does, ties included", "[cuda][top_k]") {
  const kd::cuda::stream s;
  for (const std::size_t classes : {1u, 2u, 10u, 31u, 32u, 33u, 100u, 1000u})
    for (const std::size_t rows : {1u, 7u, 8u, 9u, 65u})
      for (const std::size_t k : {1u, 5u, 50u}) {
        CAPTURE(classes, rows, k);
        auto logits = kd_test::random_floats(rows * classes, 1);
        // Eight values alone: many ties.
        for (std::size_t i = 0; i < logits.size(); i += 2)
          logits[i] = static_cast<float>(static_cast<int>(logits[i] * 4));
        std::vector<std::int32_t> labels(rows);
        for (std::size_t r = 0; r < rows; ++r) labels[r] = static_cast<std::int32_t>(r * 7 % classes);
        const auto want = by_sorting(rows, classes, logits, labels, k);
        CHECK(count(s, rows, classes, logits, labels, k) == want);
        CHECK(count(s, rows, classes, logits, labels, k, {100, 1ull << 40}) ==
              counts{100 + want[0], (1ull << 40) + want[1]});
      }
}

TEST_CASE("cuda count_top_k: of equal logits the first class counts", "[cuda][top_k]") {
  const kd::cuda::stream s;
  const std::vector<float> equal(6 * 6, 2.5f);
  CHECK(count(s, 6, 6, equal, {0, 1, 2, 3, 4, 5}, 5) == counts{1, 5});
  CHECK(count(s, 1, 2, {-infinite, -infinite}, {0}, 1) == counts{1, 1});
  CHECK(count(s, 1, 2, {-infinite, -infinite}, {1}, 1) == counts{0, 0});
}

TEST_CASE("cuda count_top_k: NaN is better than none, and a label that is no class counts nowhere", "[cuda][top_k]") {
  const kd::cuda::stream s;
  CHECK(count(s, 1, 3, {not_a_number, 1, 2}, {0}, 5) == counts{0, 0});
  CHECK(count(s, 1, 3, {not_a_number, 1, 2}, {2}, 1) == counts{1, 1});
  CHECK(count(s, 1, 3, {3, not_a_number, 2}, {2}, 2) == counts{0, 1});
  CHECK(count(s, 3, 2, {1, 2, 1, 2, 1, 2}, {-1, 2, 1}, 5) == counts{1, 1});
}

TEST_CASE("cuda count_top_k: no rows leave the counts, and k of 0 is refused", "[cuda][top_k]") {
  const kd::cuda::stream s;
  CHECK(count(s, 0, 10, {}, {}, 5, {3, 4}) == counts{3, 4});
  CHECK_THROWS_AS(count(s, 1, 2, {1, 2}, {0}, 0), kd::argument_error);
}
