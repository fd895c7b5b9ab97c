#include "kd/core/random.hpp"

#include <cstdint>
#include <vector>

#include "kd/cuda/launch.hpp"
#include "kd/kernel/random.cuh"
#include "support/catch.hpp"
#include "support/guarded_array.hpp"

using kd::kernel::random_stream;
using kd_test::guarded_array;

namespace kd_test {

/// Four words, a float and an integer below 9 for every thread.
template <unsigned Threads>
KD_KERNEL void __launch_bounds__(Threads)
    draw(std::uint64_t seed, random_stream stream, std::uint32_t b, std::uint32_t c, std::uint32_t* words,
         float* floats, std::uint32_t* below) {
  const auto drawn = kd::kernel::random_at(seed, stream, threadIdx.x, b, c);
  for (unsigned i = 0; i < 4; ++i) words[threadIdx.x * 4 + i] = drawn.at[i];
  floats[threadIdx.x] = kd::kernel::uniform(drawn.at[0]);
  below[threadIdx.x] = kd::kernel::uniform_below(drawn.at[1], 9);
}

}  // namespace kd_test

TEST_CASE("cuda random: the words of core/random.hpp", "[cuda][random]") {
  const kd::cuda::stream s;
  constexpr unsigned threads = 64;
  const struct {
    kd::random_stream host;
    random_stream device;
  } streams[] = {{kd::random_stream::initial_weights, random_stream::initial_weights},
                 {kd::random_stream::shuffle, random_stream::shuffle},
                 {kd::random_stream::dropout, random_stream::dropout},
                 {kd::random_stream::augmentation, random_stream::augmentation},
                 {kd::random_stream::synthetic_data, random_stream::synthetic_data}};
  for (const auto& stream : streams)
    for (const std::uint64_t seed : {std::uint64_t{0}, std::uint64_t{0xfedcba9876543210u}})
      for (const std::uint32_t b : {0u, 0xffffffffu}) {
        CAPTURE(static_cast<unsigned>(stream.host), seed, b);
        guarded_array<std::uint32_t> words(s, threads * 4), below(s, threads);
        guarded_array<float> floats(s, threads);
        kd::cuda::launch(s, "draw", 1, threads, 0, kd_test::draw<threads>, seed, stream.device, b, b / 3, words.data(),
                         floats.data(), below.data());
        std::vector<std::uint32_t> want, want_below;
        std::vector<float> want_floats;
        for (std::uint32_t i = 0; i < threads; ++i) {
          const auto drawn = kd::random_at(seed, stream.host, i, b, b / 3);
          want.insert(want.end(), drawn.begin(), drawn.end());
          want_floats.push_back(kd::uniform(drawn[0]));
          want_below.push_back(kd::uniform_below(drawn[1], 9));
        }
        CHECK(words.values() == want);
        CHECK(floats.values() == want_floats);
        CHECK(below.values() == want_below);
      }
}

TEST_CASE("cuda random: the published known answers", "[cuda][random]") {
  // Random123's kat_vectors: all zeros, all ones.
  const auto zeros = kd::kernel::philox4x32({{0, 0, 0, 0}}, 0);
  CHECK((zeros.at[0] == 0x6627e8d5u && zeros.at[1] == 0xe169c58du && zeros.at[2] == 0xbc57ac4cu &&
         zeros.at[3] == 0x9b00dbd8u));
  const auto ones = kd::kernel::philox4x32({{~0u, ~0u, ~0u, ~0u}}, ~std::uint64_t{0});
  CHECK((ones.at[0] == 0x408f276du && ones.at[1] == 0x41c83b0eu && ones.at[2] == 0xa20bc7c6u &&
         ones.at[3] == 0x6d5451fdu));
}
