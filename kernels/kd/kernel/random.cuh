/// Philox4x32-10 in a kernel: the same numbers as kd/core/random.hpp gives on the host, word for word.
///
/// Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011, section 3.3. Ten rounds of two
/// 32 x 32 -> 64 bit multiplications, about 100 instructions for four words. Checked in tests/cuda/random_test.cpp.
#pragma once

#include "kd/kernel/abi.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// The last counter word, by use; the values of kd::random_stream.
enum class random_stream : std::uint32_t {
  initial_weights = 1,
  shuffle = 2,
  dropout = 3,
  augmentation = 4,
  synthetic_data = 5
};

/// Four independent uniform 32-bit words.
struct random_words {
  std::uint32_t at[4];
};

/// The ten rounds over a 128-bit counter with a 64-bit key.
__host__ __device__ inline random_words philox4x32(random_words counter, std::uint64_t key) {
  auto k0 = static_cast<std::uint32_t>(key);
  auto k1 = static_cast<std::uint32_t>(key >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * counter.at[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * counter.at[2];
    counter = {{static_cast<std::uint32_t>(p1 >> 32) ^ counter.at[1] ^ k0, static_cast<std::uint32_t>(p1),
                static_cast<std::uint32_t>(p0 >> 32) ^ counter.at[3] ^ k1, static_cast<std::uint32_t>(p0)}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return counter;
}

/// Words of one stream; a, b and c as kd::random_at.
__host__ __device__ inline random_words random_at(std::uint64_t seed, random_stream stream, std::uint32_t a,
                                                  std::uint32_t b = 0, std::uint32_t c = 0) {
  return philox4x32({{a, b, c, static_cast<std::uint32_t>(stream)}}, seed);
}

/// A word as a float in [0, 1) with 24 random bits.
__host__ __device__ inline float uniform(std::uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

/// A word as an integer in [0, bound), bound > 0.
__host__ __device__ inline std::uint32_t uniform_below(std::uint32_t word, std::uint32_t bound) {
  return static_cast<std::uint32_t>((std::uint64_t{word} * bound) >> 32);
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
