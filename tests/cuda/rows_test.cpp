#include "kd/cuda/rows.hpp"

#include <cstdint>
#include <vector>

#include "support/catch.hpp"
#include "support/guarded_array.hpp"

using kd_test::guarded_array;

namespace {

std::vector<std::uint32_t> some_indices(std::size_t count, std::uint32_t samples) {
  std::vector<std::uint32_t> indices(count);
  for (std::size_t i = 0; i < count; ++i) indices[i] = static_cast<std::uint32_t>((i * 7 + 3) % samples);
  return indices;
}

}  // namespace

TEST_CASE("cuda gather_rows: copies the rows of the samples, at any width and alignment", "[cuda][rows]") {
  const kd::cuda::stream s;
  constexpr std::uint32_t samples = 9;
  for (const std::size_t width : {1u, 2u, 3u, 4u, 5u, 8u, 10u, 31u, 64u, 100u, 255u, 1023u, 1024u, 1028u, 2052u})
    for (const std::size_t count : {0u, 1u, 2u, 5u, 17u})
      for (const std::size_t shift : {0u, 1u}) {
        CAPTURE(width, count, shift);
        const auto table = kd_test::random_floats(samples * width, 1);
        const auto indices = some_indices(count, samples);
        std::vector<float> want;
        for (const std::uint32_t i : indices)
          want.insert(want.end(), table.begin() + i * static_cast<std::ptrdiff_t>(width),
                      table.begin() + (i + 1) * static_cast<std::ptrdiff_t>(width));
        guarded_array<float> device_table(s, table, shift), out(s, count * width);
        guarded_array<std::uint32_t> device_indices(s, indices);
        kd::cuda::gather_rows(s, device_table.data(), width, device_indices.data(), count, out.data());
        CHECK(out.values() == want);
      }
}

TEST_CASE("cuda gather_rows: many short rows", "[cuda][rows]") {
  const kd::cuda::stream s;
  const auto table = kd_test::random_floats(1000 * 10, 2);
  const auto indices = some_indices(1000, 1000);
  guarded_array<float> device_table(s, table), out(s, 1000 * 10);
  guarded_array<std::uint32_t> device_indices(s, indices);
  kd::cuda::gather_rows(s, device_table.data(), 10, device_indices.data(), 1000, out.data());
  const auto got = out.values();
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < 1000; ++i)
    for (std::size_t c = 0; c < 10; ++c) wrong += got[i * 10 + c] != table[indices[i] * 10 + c];
  CHECK(wrong == 0);
}

TEST_CASE("cuda gather_labels: takes the labels of the samples", "[cuda][rows]") {
  const kd::cuda::stream s;
  const std::vector<std::int32_t> labels{5, -1, 7, 2147483647, 9};
  for (const std::size_t count : {0u, 1u, 255u, 256u, 257u}) {
    const auto indices = some_indices(count, 5);
    std::vector<std::int32_t> want;
    for (const std::uint32_t i : indices) want.push_back(labels[i]);
    guarded_array<std::int32_t> device_labels(s, labels), out(s, count);
    guarded_array<std::uint32_t> device_indices(s, indices);
    kd::cuda::gather_labels(s, device_labels.data(), device_indices.data(), count, out.data());
    CHECK(out.values() == want);
  }
}
