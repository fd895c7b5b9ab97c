/// Philox4x32-10: random numbers that are a pure function of (seed, counter), equal on every device.
/// Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011, section 3.3.
#pragma once

#include <array>
#include <cstdint>

#include "kd/core/abi.hpp"

namespace kd::inline KD_ABI {

/// What the numbers are for; the last counter word, so that no two uses ever share a number.
enum class random_stream : std::uint32_t {
  initial_weights = 1,  // counter: element / 4, 0, parameter
  shuffle = 2,          // counter: position / 4, epoch, 0
  dropout = 3,          // counter: element / 4, step, layer; element = sample * features + feature
  augmentation = 4,     // counter: sample, epoch, 0
  synthetic_data = 5,   // counter: draw, image, split
};

/// Four independent uniform 32-bit words.
using random_words = std::array<std::uint32_t, 4>;

/// The ten rounds of Philox4x32 over a 128-bit counter with a 64-bit key.
constexpr random_words philox4x32(random_words counter, std::uint64_t key) {
  auto k0 = static_cast<std::uint32_t>(key);
  auto k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ k0, static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return counter;
}

/// The random numbers of one training step: a function of seed and step. `counter`, where it is not null, lies in the
/// device's memory and is added to `step`, so that a step that was recorded once draws new numbers at every replay.
struct step_random {
  std::uint64_t seed = 0;
  std::uint32_t step = 0;
  const std::uint32_t* counter = nullptr;
};

/// Words of one stream: `a` is the running index, `b` and `c` tell draws of the same stream apart (see random_stream).
constexpr random_words random_at(std::uint64_t seed, random_stream stream, std::uint32_t a, std::uint32_t b = 0,
                                 std::uint32_t c = 0) {
  return philox4x32({a, b, c, static_cast<std::uint32_t>(stream)}, seed);
}

/// A word as a float in [0, 1) with 24 random bits.
constexpr float uniform(std::uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

/// A word as an integer in [0, bound), bound > 0 (Lemire's multiply-shift; bias below bound / 2^32).
constexpr std::uint32_t uniform_below(std::uint32_t word, std::uint32_t bound) {
  return static_cast<std::uint32_t>((std::uint64_t{word} * bound) >> 32);
}

}  // namespace kd::inline KD_ABI
