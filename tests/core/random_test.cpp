#include "kd/core/random.hpp"

#include "support/catch.hpp"

// Known answers of Random123 1.09, kat_vectors: philox4x32 10.
TEST_CASE("philox4x32: known answers", "[core][random]") {
  using words = kd::random_words;
  CHECK(kd::philox4x32({0, 0, 0, 0}, 0) == words{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
  CHECK(kd::philox4x32({~0u, ~0u, ~0u, ~0u}, ~std::uint64_t{0}) ==
        words{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
  CHECK(kd::philox4x32({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, 0x299f31d0a4093822u) ==
        words{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u});
}

TEST_CASE("uniform: in [0, 1), with the expected ends", "[core][random]") {
  CHECK(kd::uniform(0) == 0.0f);
  CHECK(kd::uniform(~0u) < 1.0f);
  CHECK(kd::uniform(0x80000000u) == 0.5f);
  CHECK(kd::uniform_below(~0u, 10) == 9);
  CHECK(kd::uniform_below(0, 10) == 0);
}
