/// SHA-256 (FIPS 180-4) and MD5 (RFC 1321), for checking downloads; XXH64, for telling data sets apart. MD5 and XXH64
/// tell damage and mistakes, not malice.
#pragma once

#include <array>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"

namespace kd::inline KD_ABI::io {

namespace detail {

// Both hashes eat 64-byte blocks and end with 0x80, zeros and the length in bits; they differ in byte order and rounds.
template <class Hash>
class block_hash {
 public:
  void update(std::span<const std::uint8_t> bytes) {
    length_ += bytes.size();
    while (!bytes.empty()) {
      if (used_ == 0 && bytes.size() >= 64) {
        self().compress(bytes.data());
        bytes = bytes.subspan(64);
        continue;
      }
      const std::size_t room = 64 - used_, take = bytes.size() < room ? bytes.size() : room;
      std::memcpy(block_.data() + used_, bytes.data(), take);
      used_ += take;
      bytes = bytes.subspan(take);
      if (used_ == 64) {
        self().compress(block_.data());
        used_ = 0;
      }
    }
  }
  void update(std::string_view characters) {
    update(std::span(reinterpret_cast<const std::uint8_t*>(characters.data()), characters.size()));
  }

  /// The digest of all bytes so far as lower-case hexadecimal; the hash itself can go on.
  std::string hex() const {
    Hash last = static_cast<const Hash&>(*this);
    const std::uint64_t bits = length_ * 8;
    std::array<std::uint8_t, 72> padding{0x80};
    const std::size_t zeros_end = used_ < 56 ? 56 - used_ : 120 - used_;
    for (std::size_t i = 0; i < 8; ++i) {
      padding[zeros_end + i] = static_cast<std::uint8_t>(bits >> (8 * (Hash::big_endian ? 7 - i : i)));
    }
    last.update(std::span<const std::uint8_t>(padding).first(zeros_end + 8));
    std::string out;
    for (const std::uint32_t word : last.state_) {
      for (std::size_t i = 0; i < 4; ++i) {
        const auto byte = static_cast<std::uint8_t>(word >> (8 * (Hash::big_endian ? 3 - i : i)));
        out += "0123456789abcdef"[byte >> 4];
        out += "0123456789abcdef"[byte & 15];
      }
    }
    return out;
  }

 protected:
  static std::uint32_t word_of(const std::uint8_t* bytes) {
    std::uint32_t word = 0;
    for (std::size_t i = 0; i < 4; ++i) word |= std::uint32_t{bytes[i]} << (8 * (Hash::big_endian ? 3 - i : i));
    return word;
  }

 private:
  Hash& self() { return static_cast<Hash&>(*this); }

  std::array<std::uint8_t, 64> block_{};
  std::size_t used_ = 0;
  std::uint64_t length_ = 0;
};

// FIPS 180-4, section 4.2.2.
inline constexpr std::array<std::uint32_t, 64> sha256_constants = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

// RFC 1321, section 3.4: floor(2^32 |sin(i + 1)|).
inline constexpr std::array<std::uint32_t, 64> md5_constants = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391};

}  // namespace detail

/// SHA-256 of the bytes given to update(); hex() is 64 characters.
class sha256 : public detail::block_hash<sha256> {
 public:
  static constexpr bool big_endian = true;

 private:
  friend class detail::block_hash<sha256>;

  void compress(const std::uint8_t* block) {
    std::array<std::uint32_t, 64> w;
    for (std::size_t i = 0; i < 16; ++i) w[i] = word_of(block + 4 * i);
    for (std::size_t i = 16; i < 64; ++i) {
      const std::uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
      const std::uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    auto [a, b, c, d, e, f, g, h] = state_;
    for (std::size_t i = 0; i < 64; ++i) {
      const std::uint32_t sum1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
      const std::uint32_t t1 = h + sum1 + ((e & f) ^ (~e & g)) + detail::sha256_constants[i] + w[i];
      const std::uint32_t sum0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
      const std::uint32_t t2 = sum0 + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    const std::array<std::uint32_t, 8> add = {a, b, c, d, e, f, g, h};
    for (std::size_t i = 0; i < 8; ++i) state_[i] += add[i];
  }

  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
};

/// MD5 of the bytes given to update(); hex() is 32 characters.
class md5 : public detail::block_hash<md5> {
 public:
  static constexpr bool big_endian = false;

 private:
  friend class detail::block_hash<md5>;

  void compress(const std::uint8_t* block) {
    static constexpr std::array<std::array<int, 4>, 4> turns = {
        {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}}};
    auto [a, b, c, d] = state_;
    for (std::size_t i = 0; i < 64; ++i) {
      std::uint32_t f = 0;
      std::size_t k = 0;
      if (i < 16) {
        f = (b & c) | (~b & d), k = i;
      } else if (i < 32) {
        f = (d & b) | (~d & c), k = (5 * i + 1) % 16;
      } else if (i < 48) {
        f = b ^ c ^ d, k = (3 * i + 5) % 16;
      } else {
        f = c ^ (b | ~d), k = (7 * i) % 16;
      }
      const std::uint32_t sum = a + f + detail::md5_constants[i] + word_of(block + 4 * k);
      a = d, d = c, c = b, b = b + std::rotl(sum, turns[i / 16][i % 4]);
    }
    const std::array<std::uint32_t, 4> add = {a, b, c, d};
    for (std::size_t i = 0; i < 4; ++i) state_[i] += add[i];
  }

  std::array<std::uint32_t, 4> state_ = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
};

/// The SHA-256 of a text.
inline std::string sha256_of(std::string_view characters) {
  sha256 hash;
  hash.update(characters);
  return hash.hex();
}

/// XXH64 of some bytes: 64 bits, four lanes of 64-bit words, about as fast as memory is read. Several pieces are one
/// after another where the digest of one is the seed of the next. Collet,
/// https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md.
inline std::uint64_t xxh64(std::span<const std::byte> bytes, std::uint64_t seed = 0) {
  constexpr std::uint64_t p1 = 0x9E3779B185EBCA87, p2 = 0xC2B2AE3D27D4EB4F, p3 = 0x165667B19E3779F9,
                          p4 = 0x85EBCA77C2B2AE63, p5 = 0x27D4EB2F165667C5;
  const auto word = [](const std::byte* at) {
    std::uint64_t value;
    std::memcpy(&value, at, sizeof value);
    return value;
  };
  const auto round = [](std::uint64_t lane, std::uint64_t input) { return std::rotl(lane + input * p2, 31) * p1; };
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  std::uint64_t sum = seed + p5;
  if (left >= 32) {
    std::array<std::uint64_t, 4> lanes{seed + p1 + p2, seed + p2, seed, seed - p1};
    for (; left >= 32; at += 32, left -= 32)
      for (std::size_t i = 0; i < 4; ++i) lanes[i] = round(lanes[i], word(at + 8 * i));
    sum = std::rotl(lanes[0], 1) + std::rotl(lanes[1], 7) + std::rotl(lanes[2], 12) + std::rotl(lanes[3], 18);
    for (const std::uint64_t lane : lanes) sum = (sum ^ round(0, lane)) * p1 + p4;
  }
  sum += bytes.size();
  for (; left >= 8; at += 8, left -= 8) sum = std::rotl(sum ^ round(0, word(at)), 27) * p1 + p4;
  if (left >= 4) {
    std::uint32_t half;
    std::memcpy(&half, at, sizeof half);
    sum = std::rotl(sum ^ half * p1, 23) * p2 + p3;
    at += 4, left -= 4;
  }
  for (; left > 0; ++at, --left) sum = std::rotl(sum ^ std::to_integer<std::uint64_t>(*at) * p5, 11) * p1;
  sum = (sum ^ sum >> 33) * p2;
  sum = (sum ^ sum >> 29) * p3;
  return sum ^ sum >> 32;
}

/// Both digests of a file, and its length.
struct file_digests {
  std::string sha256, md5;
  std::uint64_t bytes = 0;
};

/// Reads a file once and digests it; file_error when it cannot be read.
inline file_digests digest_file(const std::string& path) {
  const auto fail = [&](std::string_view verb) {
    throw file_error(text(path, ": cannot ", verb, ": ", std::strerror(errno), "; check the path and its permissions"));
  };
  const auto close = [](std::FILE* f) { std::fclose(f); };
  const std::unique_ptr<std::FILE, decltype(close)> file(std::fopen(path.c_str(), "rb"), close);
  if (!file) fail("open");
  sha256 sha;
  md5 sum;
  file_digests out;
  std::vector<std::uint8_t> chunk(std::size_t{1} << 16);
  while (const std::size_t got = std::fread(chunk.data(), 1, chunk.size(), file.get())) {
    const auto bytes = std::span<const std::uint8_t>(chunk).first(got);
    sha.update(bytes), sum.update(bytes);
    out.bytes += got;
  }
  if (std::ferror(file.get())) fail("read");
  out.sha256 = sha.hex(), out.md5 = sum.hex();
  return out;
}

}  // namespace kd::inline KD_ABI::io
