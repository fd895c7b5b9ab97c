#include "kd/optim/live_runs.hpp"

#include <cstddef>
#include <vector>

#include "support/catch.hpp"

using kd::conv2d_geometry;
using kd::optim::live_runs;
using kd::optim::live_runs_of;

namespace {

/// How often each weight is named by the runs.
std::vector<int> times_named(const conv2d_geometry& g, std::size_t offset) {
  std::vector<int> named(offset + g.weights() + 8);
  const auto list = live_runs_of(g, offset);
  for (const live_runs& r : std::span<const live_runs>(list))
    for (std::size_t i = 0; i < r.count; ++i)
      for (std::size_t j = 0; j < r.run; ++j) ++named.at(r.begin + i * r.stride + j);
  return named;
}

/// 1 for each weight whose tap is between the first and last that meet the input, by the definition of a convolution.
std::vector<int> alive_by_definition(const conv2d_geometry& g, std::size_t offset) {
  const auto meets = [](std::size_t k, std::size_t out_size, std::size_t in_size, std::size_t stride, std::size_t pad) {
    for (std::size_t o = 0; o < out_size; ++o) {
      const std::size_t padded = o * stride + k;
      if (padded >= pad && padded - pad < in_size) return true;
    }
    return false;
  };
  std::vector<int> alive(offset + g.weights() + 8);
  std::size_t at = offset;
  for (std::size_t o = 0; o < g.out_channels; ++o)
    for (std::size_t y = 0; y < g.kernel_h; ++y)
      for (std::size_t x = 0; x < g.kernel_w; ++x)
        for (std::size_t i = 0; i < g.in_channels; ++i)
          alive[at++] = meets(y, g.out_height(), g.in_height, g.stride_h, g.padding_h) &&
                        meets(x, g.out_width(), g.in_width, g.stride_w, g.padding_w);
  return alive;
}

constexpr conv2d_geometry conv(std::size_t in, std::size_t size, std::size_t out, std::size_t kernel,
                               std::size_t stride, std::size_t padding) {
  return {in, size, size, out, kernel, kernel, stride, stride, padding, padding};
}

}  // namespace

TEST_CASE("live_runs_of: exactly the weights that meet the input, each once", "[optim][live_runs]") {
  for (const conv2d_geometry& g :
       {conv(3, 8, 4, 3, 1, 1), conv(16, 1, 4, 3, 1, 1), conv(16, 2, 4, 3, 2, 1), conv(2, 2, 3, 3, 1, 1),
        conv(4, 1, 3, 1, 1, 0), conv(2, 1, 3, 7, 2, 3), conv(2, 3, 3, 9, 1, 4), conv(1, 1, 1, 3, 1, 1),
        conv2d_geometry{2, 1, 9, 3, 3, 3, 1, 1, 1, 1}, conv2d_geometry{2, 9, 1, 3, 3, 3, 1, 1, 1, 1},
        conv2d_geometry{2, 4, 1, 3, 5, 3, 1, 2, 2, 1}})
    for (const std::size_t offset : {0u, 37u}) {
      INFO(g.in_height << "x" << g.in_width << " kernel " << g.kernel_h << "x" << g.kernel_w);
      CHECK(times_named(g, offset) == alive_by_definition(g, offset));
    }
}

TEST_CASE("live_runs_of: groups are merged and known at compile time", "[optim][live_runs]") {
  constexpr auto all = live_runs_of(conv(64, 8, 32, 3, 1, 1), 100);
  STATIC_REQUIRE(all.used == 1);
  STATIC_REQUIRE(all.groups[0] == live_runs{100, 18432, 18432, 1});
  constexpr auto centre = live_runs_of(conv(512, 1, 512, 3, 1, 1));
  STATIC_REQUIRE(centre.used == 1);
  STATIC_REQUIRE(centre.groups[0] == live_runs{4 * 512, 512, 9 * 512, 512});
  constexpr auto corner = live_runs_of(conv(256, 2, 512, 3, 2, 1), 7);
  STATIC_REQUIRE(corner.used == 2);
  STATIC_REQUIRE(corner.groups[0] == live_runs{7 + 4 * 256, 512, 9 * 256, 512});
  STATIC_REQUIRE(corner.groups[1] == live_runs{7 + 7 * 256, 512, 9 * 256, 512});
  STATIC_REQUIRE(corner.size() == 4 * 256 * 512);
  constexpr auto rows = live_runs_of(conv2d_geometry{8, 1, 9, 4, 3, 3, 1, 1, 1, 1});
  STATIC_REQUIRE(rows.used == 1);
  STATIC_REQUIRE(rows.groups[0] == live_runs{24, 24, 72, 4});
  STATIC_REQUIRE(kd::optim::runs_of({3, 10}) == live_runs{3, 7, 7, 1});
}

TEST_CASE("live_runs_of: more groups than fit are rejected, whole rows are not", "[optim][live_runs]") {
  CHECK_THROWS_AS(live_runs_of(conv2d_geometry{1, 40, 1, 1, 17, 3, 1, 1, 0, 1}), kd::argument_error);
  CHECK_NOTHROW(live_runs_of(conv2d_geometry{1, 40, 1, 1, 16, 3, 1, 1, 0, 1}));
  CHECK(live_runs_of(conv2d_geometry{1, 40, 40, 1, 17, 17, 1, 1, 0, 0}).used == 1);
}
