#include "kd/core/shape.hpp"

#include "kd/core/tensor.hpp"
#include "kd/core/type_list.hpp"
#include "support/catch.hpp"

TEST_CASE("live_taps: the taps that meet the image, by counting", "[core][shape]") {
  for (std::size_t in = 1; in <= 9; ++in)
    for (std::size_t kernel = 1; kernel <= 7; ++kernel)
      for (std::size_t stride = 1; stride <= 3; ++stride)
        for (std::size_t padding = 0; padding <= kernel; ++padding) {
          if (in + 2 * padding < kernel) continue;
          const std::size_t outs = (in + 2 * padding - kernel) / stride + 1;
          for (std::size_t out = 0; out < outs; ++out) {
            const kd::range taps = kd::live_taps(out, in, kernel, stride, padding);
            for (std::size_t k = 0; k < kernel; ++k) {
              const bool inside = out * stride + k >= padding && out * stride + k - padding < in;
              CHECK(inside == (k >= taps.begin && k < taps.end));
            }
          }
        }
}

TEST_CASE("ever_live_taps: ResNet18's last stage only uses the centre", "[core][shape]") {
  constexpr kd::range one_pixel = kd::ever_live_taps(1, 1, 3, 1, 1);
  static_assert(one_pixel.begin == 1 && one_pixel.end == 2);
  constexpr kd::range halved = kd::ever_live_taps(2, 1, 3, 2, 1);
  CHECK(halved.begin == 1);
  CHECK(halved.end == 3);
}

TEST_CASE("tensor: rows and elements", "[core][tensor]") {
  kd::tensor<float, 2> t({3, 4});
  t(2, 1) = 7;
  CHECK(t.size() == 12);
  CHECK(t.row(2)[1] == 7.0f);
  CHECK(t.elements()[9] == 7.0f);
  CHECK_THROWS_AS(t.row(3), kd::argument_error);
}

TEST_CASE("type_list: access by position", "[core][type_list]") {
  using list = decltype(kd::type_list<int, char>{} + kd::type_list<float>{});
  static_assert(list::size == 3);
  static_assert(std::is_same_v<kd::type_at<1, list>, char>);
  CHECK(std::is_same_v<kd::type_at<2, list>, float>);
}
