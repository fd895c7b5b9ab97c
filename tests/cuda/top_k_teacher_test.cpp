#include "kd/cuda/top_k_teacher.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "kd/loss/top_k_teacher.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded_array.hpp"
#include "support/message.hpp"

using kd::top_k_rest;
using kd_test::guarded_array;

namespace {

template <class Value, class Index>
struct kept {
  std::size_t rows, classes, k, stride;
  std::vector<Index> indices;
  std::vector<float> values;

  kept(std::size_t rows_, std::size_t classes_, std::size_t k_)
      : rows(rows_), classes(classes_), k(k_), stride(classes + 3) {
    const auto draw = kd_test::random_floats(rows * k, 3);
    for (std::size_t row = 0; row < rows; ++row)
      for (std::size_t i = 0; i < k; ++i) {
        indices.push_back(static_cast<Index>((row + i * 7) % classes));  // 7 divides no number of classes below
        values.push_back(std::log((0.6f + 0.4f * draw[row * k + i]) / static_cast<float>(k)));
      }
    values = kd_test::to_floats(kd_test::rounded_to<Value>(values));
  }
  kd::top_k_rows<float, Index> on_host(top_k_rest rest) const {
    return {
        .rows = rows, .classes = classes, .k = k, .indices = {indices.data()}, .values = {values.data()}, .rest = rest};
  }
  /// What the GPU writes, [rows, stride], 5 where it does not.
  std::vector<float> expand(const kd::cuda::stream& s, top_k_rest rest) const {
    guarded_array<Index> device_indices(s, indices);
    guarded_array<Value> device_values(s, values);
    guarded_array<float> out(s, std::vector<float>(rows * stride, 5));
    kd::cuda::expand_top_k(s,
                           kd::formula::top_k_rows<Value, Index>{.rows = rows,
                                                                 .classes = classes,
                                                                 .k = k,
                                                                 .indices = {device_indices.data()},
                                                                 .values = {device_values.data()},
                                                                 .rest = rest},
                           {out.data(), stride});
    return out.values();
  }
};

template <class Value, class Index>
void check_against_host() {
  const kd::cuda::stream s;
  for (const auto& [classes, k] : {std::pair{3u, 1u}, {5u, 5u}, {300u, 20u}, {1000u, 256u}})
    for (const top_k_rest rest : {top_k_rest::masked, top_k_rest::spread}) {
      CAPTURE(classes, k, static_cast<int>(rest));
      const kept<Value, Index> b(3, classes, k);
      std::vector<float> want(b.rows * b.stride, 5);
      kd::expand_top_k(b.on_host(rest), {want.data(), b.stride});
      const auto got = b.expand(s, rest);
      if (rest == top_k_rest::masked)
        CHECK(got == want);
      else
        CHECK(kd_test::near(got, want, {.relative = 1e-6}, "logits"));
    }
}

}  // namespace

TEST_CASE("cuda expand_top_k: rows are those that the host writes", "[cuda][top_k]") {
  check_against_host<float, std::int32_t>();
  check_against_host<kd::kernel::bfloat16, std::int64_t>();
}

TEST_CASE("cuda expand_top_k: a row that cannot be becomes NaN, the others do not", "[cuda][top_k]") {
  const kd::cuda::stream s;
  const auto nans = [&](const kept<float, std::int32_t>& b, top_k_rest rest) {
    std::vector<std::size_t> found;
    const auto out = b.expand(s, rest);
    for (std::size_t row = 0; row < b.rows; ++row) {
      const auto begin = out.begin() + static_cast<std::ptrdiff_t>(row * b.stride);
      const auto count =
          std::count_if(begin, begin + static_cast<std::ptrdiff_t>(b.classes), [](float x) { return std::isnan(x); });
      CHECK((count == 0 || count == static_cast<std::ptrdiff_t>(b.classes)));
      if (count > 0) found.push_back(row);
    }
    return found;
  };
  const kept<float, std::int32_t> good(4, 20, 6);
  using rows = std::vector<std::size_t>;
  CHECK(nans(good, top_k_rest::spread).empty());
  auto bad = good;
  bad.indices[6 + 2] = 20;
  CHECK(nans(bad, top_k_rest::masked) == rows{1});
  bad.indices[6 + 2] = -1;
  bad.indices[18 + 5] = bad.indices[18];
  CHECK(nans(bad, top_k_rest::spread) == rows{1, 3});
  bad = good;
  bad.values[0] = 1;
  CHECK(nans(bad, top_k_rest::spread) == rows{0});
  CHECK(nans(bad, top_k_rest::masked).empty());  // they may be logits
}

TEST_CASE("cuda expand_top_k: arguments that do not fit are refused", "[cuda][top_k][errors]") {
  const kd::cuda::stream s;
  guarded_array<std::int32_t> indices(s, std::vector<std::int32_t>{0, 1});
  guarded_array<float> values(s, std::vector<float>{-1, -1}), out(s, std::vector<float>(5, 5));
  const kd::top_k_rows<> good = {
      .rows = 1, .classes = 5, .k = 2, .indices = {indices.data()}, .values = {values.data()}};
  const auto message = [&](const kd::top_k_rows<>& from, float* to) {
    return kd_test::message_of<kd::argument_error>([&] { kd::cuda::expand_top_k(s, from, {to}); });
  };
  auto bad = good;
  bad.k = 6;
  CHECK(kd_test::holds(message(bad, out.data()), "k must lie in [1,5]"));
  bad = good;
  bad.rest = top_k_rest::one_bucket;
  CHECK(kd_test::holds(message(bad, out.data()), "masked or spread"));
  bad = good;
  bad.indices.data = nullptr;
  CHECK(kd_test::holds(message(bad, out.data()), "must not be null"));
  CHECK(kd_test::holds(message(good, nullptr), "rows to write must not be null"));
  CHECK(kd_test::holds(message(good, values.data()), "must not share memory"));
  CHECK(out.values() == std::vector<float>(5, 5));
  kd::cuda::expand_top_k(s, kd::top_k_rows<>{}, {out.data()});  // no rows
}
