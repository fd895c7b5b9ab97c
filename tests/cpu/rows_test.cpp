#include "kd/cpu/rows.hpp"

#include <vector>

#include "kd/core/random.hpp"
#include "support/catch.hpp"

namespace {

using kd::cpu::lanes;

std::vector<float> random_rows(std::size_t n) {
  std::vector<float> v(n);
  for (std::size_t i = 0; i < n; ++i)
    v[i] = kd::uniform(kd::random_at(7, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i))[0]) - 0.5f;
  return v;
}

}  // namespace

TEST_CASE("rows: lane-blocked storage holds each feature where the layout says", "[cpu][rows]") {
  const kd::shape shapes[] = {kd::row_shape(1), kd::row_shape(10), kd::image_shape(3, 2, 5), kd::image_shape(1, 4, 4)};
  for (const kd::shape& s : shapes)
    for (const std::size_t batch : {1, 15, 16, 17, 33})
      for (const int threads : {1, 2}) {
        CAPTURE(kd::text_of(s), batch, threads);
        const std::vector<float> rows = random_rows(batch * s.size());
        std::vector<float> x(kd::cpu::storage_size(s, batch), -9.0f);
        kd::cpu::from_rows({threads}, s, batch, rows.data(), x.data());
        std::size_t wrong = 0;
        for (std::size_t n = 0; n < kd::cpu::blocks_of(batch) * lanes; ++n)
          for (std::size_t c = 0; c < s.channels; ++c)
            for (std::size_t h = 0; h < s.height; ++h)
              for (std::size_t w = 0; w < s.width; ++w) {
                const std::size_t at =
                    (((n / lanes * s.height + h) * s.width + w) * s.channels + c) * lanes + n % lanes;
                const float want = n < batch ? rows[n * s.size() + (c * s.height + h) * s.width + w] : 0.0f;
                wrong += !(x.at(at) == want);
              }
        CHECK(wrong == 0);
        std::vector<float> back(rows.size(), -9.0f);
        kd::cpu::to_rows({threads}, s, batch, x.data(), back.data());
        CHECK(back == rows);
      }
}

TEST_CASE("rows: an empty batch writes nothing", "[cpu][rows]") {
  kd::cpu::from_rows({2}, kd::row_shape(4), 0, nullptr, nullptr);
  kd::cpu::to_rows({2}, kd::row_shape(4), 0, nullptr, nullptr);
  CHECK(kd::cpu::storage_size(kd::row_shape(4), 0) == 0);
}
