/// The direct 3x3 convolutions against their float64 definition: forward, pooled, and all gradients.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "cuda/direct_conv2d_reference.hpp"
#include "kd/cuda/buffer.hpp"
#include "kd/cuda/direct_conv2d.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded_array.hpp"

namespace {

using kd::conv2d_geometry;
using kd::kernel::bfloat16;
using kd_test::conv2d_reference;
using kd_test::guarded_array;
using kd_test::near_sums;
using kd_test::rounded_sum;

/// What all kernels compute for one problem.
struct results {
  std::vector<float> y, pooled, dx, dx_added, dw, db, pool_dx, pool_dx_added, pool_dw, pool_db;
  std::vector<std::uint8_t> winners;
  bool intact = true;  // nothing was written outside

  bool same_bits(const results& other) const {
    const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
      return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
    };
    return same(y, other.y) && same(pooled, other.pooled) && same(dx, other.dx) && same(dx_added, other.dx_added) &&
           same(dw, other.dw) && same(db, other.db) && same(pool_dx, other.pool_dx) &&
           same(pool_dx_added, other.pool_dx_added) && same(pool_dw, other.pool_dw) && same(pool_db, other.pool_db) &&
           winners == other.winners;
  }
};

struct choices {
  bool bias = true, relu = false;
  std::size_t shift = 0;  // of all images, in elements: an odd one forbids groups of four
};

std::vector<float> floats(const std::vector<double>& values) { return {values.begin(), values.end()}; }

/// An input between NaNs, which a sum that reads too far becomes as well, even where it multiplies by zero.
template <class T>
class between_nans {
 public:
  between_nans(const kd::cuda::stream& s, const std::vector<double>& values, std::size_t shift)
      : before_(margin + shift), memory_(before_ + values.size() + margin) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    std::vector<T> all(memory_.size(), kd::kernel::from_float<T>(nan));
    for (std::size_t i = 0; i < values.size(); ++i)
      all[before_ + i] = kd::kernel::from_float<T>(static_cast<float>(values[i]));
    kd::cuda::upload(s, all.data(), all.size(), memory_.data());
    s.synchronize();
  }
  const T* data() const { return memory_.data() + before_; }

 private:
  static constexpr std::size_t margin = 64;
  std::size_t before_;
  kd::cuda::buffer<T> memory_;
};

template <class T>
void run_plain(const kd::cuda::stream& s, const conv2d_reference& p, const choices& c, results& r) {
  const between_nans<T> x(s, p.x, c.shift), dy(s, p.dy, c.shift);
  const between_nans<float> w(s, p.w, c.shift), bias(s, p.bias, c.shift);

  guarded_array<T> y(s, p.dy.size(), c.shift);
  kd::cuda::direct_conv2d_forward<T>(s, p.g, p.batch, x.data(), w.data(), c.bias ? bias.data() : nullptr, c.relu,
                                     y.data());
  guarded_array<T> dx(s, p.x.size(), c.shift), dx_added(s, floats(p.dx), c.shift);
  kd::cuda::direct_conv2d_backward_data<T>(s, p.g, p.batch, dy.data(), w.data(), false, dx.data());
  kd::cuda::direct_conv2d_backward_data<T>(s, p.g, p.batch, dy.data(), w.data(), true, dx_added.data());

  guarded_array<float> scratch(s, kd::cuda::direct_conv2d_scratch(p.g, p.batch));
  guarded_array<float> dw(s, p.w.size(), c.shift), db(s, p.bias.size(), c.shift);
  kd::cuda::direct_conv2d_backward_weight<T>(s, p.g, p.batch, x.data(), dy.data(), dw.data(),
                                             c.bias ? db.data() : nullptr, scratch.data());
  r.y = y.floats();
  r.dx = dx.floats();
  r.dx_added = dx_added.floats();
  r.dw = dw.floats();
  r.db = db.floats();
  r.intact =
      r.intact && y.intact() && dx.intact() && dx_added.intact() && dw.intact() && db.intact() && scratch.intact();
}

template <class T>
void run_pooled(const kd::cuda::stream& s, const conv2d_reference& p, const choices& c, results& r) {
  const between_nans<T> x(s, p.x, c.shift), d_pooled(s, p.d_pooled, c.shift);
  const between_nans<float> w(s, p.w, c.shift), bias(s, p.bias, c.shift);
  guarded_array<std::uint8_t> given(s, std::vector<float>(p.winners.begin(), p.winners.end()), c.shift);

  guarded_array<T> pooled(s, p.d_pooled.size(), c.shift);
  guarded_array<std::uint8_t> winners(s, p.d_pooled.size(), c.shift);
  kd::cuda::direct_conv2d_relu_pool_forward<T>(s, p.g, p.batch, x.data(), w.data(), c.bias ? bias.data() : nullptr,
                                               pooled.data(), winners.data());
  guarded_array<T> dx(s, p.x.size(), c.shift), dx_added(s, floats(p.dx), c.shift);
  kd::cuda::direct_conv2d_relu_pool_backward_data<T>(s, p.g, p.batch, d_pooled.data(), given.data(), w.data(), false,
                                                     dx.data());
  kd::cuda::direct_conv2d_relu_pool_backward_data<T>(s, p.g, p.batch, d_pooled.data(), given.data(), w.data(), true,
                                                     dx_added.data());

  guarded_array<float> scratch(s, kd::cuda::direct_conv2d_scratch(p.g, p.batch));
  guarded_array<float> dw(s, p.w.size(), c.shift), db(s, p.bias.size(), c.shift);
  kd::cuda::direct_conv2d_relu_pool_backward_weight<T>(s, p.g, p.batch, x.data(), d_pooled.data(), given.data(),
                                                       dw.data(), c.bias ? db.data() : nullptr, scratch.data());
  r.pooled = pooled.floats();
  for (const float v : winners.floats()) r.winners.push_back(static_cast<std::uint8_t>(v));
  r.pool_dx = dx.floats();
  r.pool_dx_added = dx_added.floats();
  r.pool_dw = dw.floats();
  r.pool_db = db.floats();
  r.intact = r.intact && pooled.intact() && winners.intact() && dx.intact() && dx_added.intact() && dw.intact() &&
             db.intact() && scratch.intact();
}

template <class T>
results run(const conv2d_reference& p, const choices& c = {}) {
  const kd::cuda::stream s;
  results r;
  run_plain<T>(s, p, c, r);
  if (p.pools()) run_pooled<T>(s, p, c, r);
  return r;
}

template <class T>
void check(const conv2d_reference& p, const choices& c = {}) {
  INFO("bytes of a value " << sizeof(T) << ", batch " << p.batch << ", in " << kd::text_of(p.g.in()) << ", out "
                           << kd::text_of(p.g.out()) << ", bias " << c.bias << ", relu " << c.relu << ", shift "
                           << c.shift);
  const results got = run<T>(p, c);
  CHECK(got.intact);
  const std::vector<rounded_sum> sums = p.forward(c.bias);
  CHECK(near_sums<T>(got.y, c.relu ? kd_test::after_relu(sums) : sums));
  const auto plain = p.gradients(p.dy);
  CHECK(near_sums<T>(got.dx, plain.dx));
  CHECK(near_sums<T>(got.dx_added, p.added_to_dx(plain.dx)));
  CHECK(near_sums<T>(got.dw, plain.dw));
  if (c.bias) CHECK(near_sums<T>(got.db, plain.db));
  if (!p.pools()) return;
  CHECK(kd_test::near_pooled<T>(p, got.pooled, got.winners, sums));
  const auto through_pool = p.gradients(p.unpooled());
  CHECK(near_sums<T>(got.pool_dx, through_pool.dx));
  CHECK(near_sums<T>(got.pool_dx_added, p.added_to_dx(through_pool.dx)));
  CHECK(near_sums<T>(got.pool_dw, through_pool.dw));
  if (c.bias) CHECK(near_sums<T>(got.pool_db, through_pool.db));
}

conv2d_geometry geometry(std::size_t in, std::size_t out, std::size_t height, std::size_t width) {
  return {in, height, width, out, 3, 3, 1, 1, 1, 1};
}

struct extent {
  std::size_t first, second;
};
// The students' layers, one channel, primes, a last group that is not full, the largest.
const extent channels[]{{1, 1}, {3, 8}, {3, 16}, {8, 8}, {16, 16}, {5, 7}, {16, 32}, {4, 12}};
// Below a thread's 4x2 pixels, odd, several threads, a tile less and more.
const extent small_images[]{{1, 1}, {2, 2}, {3, 5}, {4, 4}, {6, 10}, {8, 8}};

template <class T>
void check_small() {
  std::size_t turn = 0;
  for (const extent& c : channels)
    for (const extent& image : small_images) {
      const std::size_t batch = turn % 3 == 0 ? 1 : turn % 3 == 1 ? 3 : 5;
      const conv2d_reference p(geometry(c.first, c.second, image.first, image.second), batch);
      check<T>(p, {.bias = turn % 4 != 1, .relu = turn % 2 == 0});
      ++turn;
    }
}

template <class T>
void check_several_tiles() {
  check<T>(conv2d_reference(geometry(3, 16, 32, 32), 1), {.relu = true});
  check<T>(conv2d_reference(geometry(16, 16, 16, 16), 1), {.bias = false});
  check<T>(conv2d_reference(geometry(8, 8, 16, 16), 1));
  check<T>(conv2d_reference(geometry(5, 7, 33, 34), 1));
  check<T>(conv2d_reference(geometry(4, 12, 17, 9), 1), {.relu = true});
  check<T>(conv2d_reference(geometry(1, 1, 66, 34), 1));
  check<T>(conv2d_reference(geometry(2, 3, 6, 70), 1));
  check<T>(conv2d_reference(geometry(16, 32, 10, 18), 1));
}

}  // namespace

TEST_CASE("cuda direct_conv2d: float matches the float64 definition on small images", "[cuda][conv2d]") {
  check_small<float>();
}

TEST_CASE("cuda direct_conv2d: bfloat16 matches the float64 definition on small images", "[cuda][conv2d]") {
  check_small<bfloat16>();
}

TEST_CASE("cuda direct_conv2d: images of several tiles match the float64 definition", "[cuda][conv2d]") {
  check_several_tiles<float>();
  check_several_tiles<bfloat16>();
}

TEST_CASE("cuda direct_conv2d: images that do not begin at a multiple of four values", "[cuda][conv2d]") {
  const conv2d_reference p(geometry(8, 12, 4, 6), 3);
  for (const std::size_t shift : {std::size_t{1}, std::size_t{2}}) {
    check<float>(p, {.shift = shift});
    check<bfloat16>(p, {.shift = shift});
  }
}

TEST_CASE("cuda direct_conv2d: more tiles than blocks of the weight gradient", "[cuda][conv2d]") {
  // 133 and 266 tiles: two and three for a block, and fewer for the last.
  check<float>(conv2d_reference(geometry(1, 2, 2, 2), 133));
  check<float>(conv2d_reference(geometry(4, 1, 1, 3), 266));
}

TEST_CASE("cuda direct_conv2d: small integers come out exactly, and the first of equal maxima wins", "[cuda][conv2d]") {
  for (const extent& c : channels) {
    const conv2d_reference p(geometry(c.first, c.second, 6, 4), 3, kd_test::values::small_integers);
    const results got = run<float>(p);
    const auto exactly = [](const std::vector<float>& is, const std::vector<rounded_sum>& want) {
      for (std::size_t i = 0; i < is.size(); ++i)
        if (!(double{is[i]} == want[i].value)) return false;
      return is.size() == want.size();
    };
    const std::vector<rounded_sum> sums = p.forward(true);
    const kd_test::pooled_values want(p, sums);
    CHECK(exactly(got.y, sums));
    CHECK(got.winners == want.winners);
    CHECK(want.ties > 0);
    CHECK(want.lost > 0);
    for (std::size_t i = 0; i < want.value.size(); ++i)
      if (!(double{got.pooled[i]} == want.value[i])) FAIL("pooled value " << i << " differs");
    const auto plain = p.gradients(p.dy), through_pool = p.gradients(p.unpooled());
    CHECK((exactly(got.dx, plain.dx) && exactly(got.dw, plain.dw) && exactly(got.db, plain.db)));
    CHECK((exactly(got.pool_dx, through_pool.dx) && exactly(got.pool_dw, through_pool.dw)));
    CHECK(exactly(got.pool_db, through_pool.db));
  }
}

TEST_CASE("cuda direct_conv2d: windows below zero have no winner and pass no gradient", "[cuda][conv2d]") {
  conv2d_reference p(geometry(3, 5, 4, 4), 2);
  for (double& b : p.bias) b = -1000;
  p.winners.assign(p.winners.size(), 4);
  const results got = run<float>(p);
  CHECK(got.winners == p.winners);
  for (const float v : got.pooled) CHECK(v == 0);
  for (const auto* all : {&got.pool_dx, &got.pool_dw, &got.pool_db})
    for (const float v : *all)
      if (!(v == 0)) FAIL("a gradient passed: " << v);
}

TEST_CASE("cuda direct_conv2d: a NaN passes relu and wins its window", "[cuda][conv2d]") {
  conv2d_reference p(geometry(4, 8, 8, 8), 1);
  p.x[(3 * 8 + 2) * 4 + 1] = std::numeric_limits<double>::quiet_NaN();  // row 3, column 2: outputs 2..4, 1..3
  const results got = run<float>(p, {.relu = true});
  const std::vector<rounded_sum> sums = p.forward(true);
  const kd_test::pooled_values want(p, sums);
  std::size_t in_plain = 0, in_pooled = 0;
  for (std::size_t i = 0; i < got.y.size(); ++i) {
    CHECK(std::isnan(got.y[i]) == std::isnan(sums[i].value));
    in_plain += std::isnan(got.y[i]) ? 1 : 0;
  }
  for (std::size_t i = 0; i < got.pooled.size(); ++i) {
    CHECK(std::isnan(got.pooled[i]) == std::isnan(want.value[i]));
    if (std::isnan(got.pooled[i])) {
      CHECK(int{got.winners[i]} == int{want.winners[i]});
      ++in_pooled;
    }
  }
  CHECK(in_plain == 9 * 8);
  CHECK(in_pooled == 4 * 8);
}

TEST_CASE("cuda direct_conv2d: gradients are the slopes of the pooled output", "[cuda][conv2d]") {
  conv2d_reference p(geometry(3, 4, 4, 6), 2);
  p.winners = run<float>(p).winners;
  const results got = run<float>(p);
  const auto loss = [&] {
    const kd_test::pooled_values y(p, p.forward(true));
    double sum = 0;
    for (std::size_t i = 0; i < y.value.size(); ++i) sum += y.value[i] * p.d_pooled[i];
    return sum;
  };
  const auto check_slopes = [&](std::vector<double>& at, const std::vector<float>& gradient) {
    constexpr double step = 1e-5;
    kd_test::comparison slopes("gradient");
    for (std::size_t i = 0; i < at.size(); ++i) {
      const double here = at[i];
      at[i] = here + step;
      const double above = loss();
      at[i] = here - step;
      const double below = loss();
      at[i] = here;
      const double slope = (above - below) / (2 * step);
      slopes.add(double{gradient[i]}, slope, 1e-4);
    }
    CHECK(slopes);
  };
  check_slopes(p.x, got.pool_dx);
  check_slopes(p.w, got.pool_dw);
  check_slopes(p.bias, got.pool_db);
}

TEST_CASE("cuda direct_conv2d: two runs give the same bits", "[cuda][conv2d]") {
  for (const conv2d_geometry& g : {geometry(3, 16, 18, 20), geometry(16, 8, 8, 8)}) {
    const conv2d_reference p(g, 3);
    CHECK(run<float>(p).same_bits(run<float>(p)));
    CHECK(run<bfloat16>(p).same_bits(run<bfloat16>(p)));
  }
}

TEST_CASE("cuda direct_conv2d: an empty batch has gradients of zero", "[cuda][conv2d]") {
  const conv2d_reference p(geometry(3, 5, 4, 4), 0);
  CHECK(kd::cuda::direct_conv2d_scratch(p.g, 0) == 0);
  const results got = run<float>(p);
  for (const auto* all : {&got.dw, &got.db, &got.pool_dw, &got.pool_db})
    for (const float v : *all) CHECK(v == 0);
}

TEST_CASE("cuda direct_conv2d: which convolutions are taken", "[cuda][conv2d]") {
  using kd::cuda::direct_conv2d;
  static_assert(direct_conv2d({3, 32, 32, 16, 3, 3, 1, 1, 1, 1}));
  static_assert(direct_conv2d({16, 1, 1, 32, 3, 3, 1, 1, 1, 1}));
  static_assert(!direct_conv2d({17, 8, 8, 16, 3, 3, 1, 1, 1, 1}) && !direct_conv2d({16, 8, 8, 33, 3, 3, 1, 1, 1, 1}));
  static_assert(!direct_conv2d({3, 8, 8, 8, 3, 3, 2, 2, 1, 1}) && !direct_conv2d({3, 8, 8, 8, 3, 3, 1, 1, 0, 0}));
  static_assert(!direct_conv2d({3, 8, 8, 8, 5, 5, 1, 1, 1, 1}) && !direct_conv2d({3, 8, 8, 8, 1, 1}));
  const kd::cuda::stream s;
  float* none = nullptr;
  CHECK_THROWS_AS(
      kd::cuda::direct_conv2d_forward<float>(s, {17, 8, 8, 8, 3, 3, 1, 1, 1, 1}, 1, none, none, none, false, none),
      kd::argument_error);
  CHECK_THROWS_AS(
      kd::cuda::direct_conv2d_relu_pool_forward<float>(s, geometry(3, 8, 4, 5), 1, none, none, none, none, nullptr),
      kd::argument_error);
}

TEST_CASE("cuda direct_conv2d: every geometry fits the shared memory of every GPU", "[cuda][conv2d]") {
  constexpr std::size_t smallest = 99 * 1024;  // per block, compute capability 8.6 and 8.9
  std::size_t outside = 0;
  namespace detail = kd::cuda::direct_conv2d_detail;
  for (std::size_t in = 1; in <= 16; ++in)
    for (std::size_t out = 1; out <= 32; ++out)
      for (const unsigned side : {1u, 2u, 3u, 4u, 7u, 8u, 15u, 16u, 17u, 31u, 32u, 33u, 64u, 1000u}) {
        const conv2d_geometry g = geometry(in, out, side, side);
        const auto forward = detail::tiling_of(g, out), data = detail::tiling_of(g, in);
        const auto weight = detail::weight_tiling_of(g);
        const unsigned in_groups = detail::ceil_quotient(in, 4), out_groups = detail::ceil_quotient(out, 4);
        const auto ins = detail::narrow(in), outs = detail::narrow(out);
        const bool fits = forward.shared_bytes(outs, in_groups, in <= 3 ? 3 : 4) <= smallest &&
                          data.shared_bytes(ins, out_groups, 4) <= smallest && weight.shared_bytes() <= smallest;
        const bool threads =
            forward.threads(outs, in_groups) <= 256 && data.threads(ins, out_groups) <= 256 && weight.threads() <= 256;
        // The short divisions of the tiles: index * divisor below 65,536.
        const std::size_t dy_values = weight.dy_layout().rows * weight.dy_layout().columns * weight.dy_layout().groups;
        const std::size_t x_pixels = weight.x_layout().rows * weight.x_layout().columns;
        const std::size_t data_pixels = (data.tile_rows + 2) * (data.tile_columns + 2);
        const bool divides = dy_values * std::max(weight.dy_layout().groups, weight.dy_layout().columns) < 262144 &&
                             (dy_values - 1) * weight.dy_layout().groups < 65536 &&
                             x_pixels * weight.x_layout().columns < 65536 && data_pixels * 64 < 65536;
        if (fits && threads && divides) continue;
        UNSCOPED_INFO("in " << in << ", out " << out << ", side " << side);
        ++outside;
      }
  CHECK(outside == 0);
}
