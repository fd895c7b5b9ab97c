#include "kd/io/checksum.hpp"

#include <cstddef>
#include <cstdio>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace {

std::string md5_of(std::string_view characters) {
  kd::io::md5 hash;
  hash.update(characters);
  return hash.hex();
}

}  // namespace

TEST_CASE("checksum: SHA-256 gives the digests of FIPS 180-4's examples", "[io][checksum]") {
  using kd::io::sha256_of;
  CHECK(sha256_of("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256_of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(sha256_of(std::string(1'000'000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("checksum: MD5 gives the digests of RFC 1321's test suite", "[io][checksum]") {
  CHECK(md5_of("") == "d41d8cd98f00b204e9800998ecf8427e");
  CHECK(md5_of("a") == "0cc175b9c0f1b6a831c399e269772661");
  CHECK(md5_of("abc") == "900150983cd24fb0d6963f7d28e17f72");
  CHECK(md5_of("message digest") == "f96b697d7cb7938d525a2f31aaf161d0");
  CHECK(md5_of("abcdefghijklmnopqrstuvwxyz") == "c3fcd3d76192e4007dfb496cca67e13b");
  CHECK(md5_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") == "d174ab98d277d9f5a5611c2c9f419d9f");
  CHECK(md5_of("12345678901234567890123456789012345678901234567890123456789012345678901234567890") ==
        "57edf4a22be3c955ac49da2e2107b67a");
}

TEST_CASE("checksum: XXH64 gives the digests of its reference implementation", "[io][checksum]") {
  // From xxhash 0.8 by python-xxhash, of the bytes 7 i mod 256: lengths around its words of 4 and 8 bytes and its
  // stripes of 32, without and with a seed.
  struct known {
    std::size_t bytes;
    std::uint64_t plain, seeded;
  };
  constexpr known all[] = {
      {0, 0xef46db3751d8e999, 0xc4349fc93c010000},   {1, 0xe934a84adb052768, 0x126bb57a12364aa5},
      {3, 0x9ff70a635a6209ab, 0xd169d7c1cb5e443f},   {4, 0xae5acdc00a55ac41, 0xaeec91bdfd4f8a43},
      {8, 0x87116b3365b924eb, 0xcfcfd09b165b3edb},   {31, 0x0f187c62b1e722b7, 0x74a5c408b232704d},
      {32, 0x91b0cb0931a8c629, 0xffed706a1999bb4f},  {33, 0x931b043cf8d65b94, 0x5d3268a30eb755d3},
      {63, 0x219110bf13e2fa26, 0x3d33bc4bfd4d217f},  {64, 0xbf3052e3445775d0, 0x767e0fa4d0ba92ef},
      {100, 0x8e2272c08247d5db, 0x783447aa4f00d046}, {1000, 0x25275608a9cfc168, 0x77ecbbeb00a44532}};
  std::vector<std::byte> bytes(1000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(7 * i % 256);
  for (const known& k : all) {
    INFO(k.bytes);
    const auto first = std::span<const std::byte>(bytes).first(k.bytes);
    CHECK(kd::io::xxh64(first) == k.plain);
    CHECK(kd::io::xxh64(first, 0x9e3779b97f4a7c15) == k.seeded);
  }
}

TEST_CASE("checksum: pieces of any size give the digest of the whole", "[io][checksum]") {
  // Lengths around the block of 64 bytes and around 56, where the padding needs a second block.
  for (const std::size_t length : {1u, 55u, 56u, 57u, 63u, 64u, 65u, 119u, 120u, 128u, 1000u}) {
    std::string all(length, ' ');
    for (std::size_t i = 0; i < length; ++i) all[i] = static_cast<char>('a' + i % 23);
    for (const std::size_t piece : {1u, 7u, 64u, 100u}) {
      kd::io::sha256 sha;
      kd::io::md5 md5;
      for (std::size_t at = 0; at < length; at += piece) {
        sha.update(std::string_view(all).substr(at, piece));
        md5.update(std::string_view(all).substr(at, piece));
      }
      INFO("length " << length << ", pieces of " << piece);
      CHECK(sha.hex() == kd::io::sha256_of(all));
      CHECK(md5.hex() == md5_of(all));
    }
  }
}

TEST_CASE("checksum: hex() does not end the hash", "[io][checksum]") {
  kd::io::sha256 hash;
  hash.update("a");
  (void)hash.hex();
  hash.update("bc");
  CHECK(hash.hex() == kd::io::sha256_of("abc"));
}

TEST_CASE("checksum: a file has the digests of its bytes, a missing file is named", "[io][checksum]") {
  const std::string path = "checksum_test.tmp";
  std::ofstream(path, std::ios::binary) << std::string(200'000, 'q');
  const kd::io::file_digests got = kd::io::digest_file(path);
  std::remove(path.c_str());
  CHECK(got.bytes == 200'000);
  CHECK(got.sha256 == kd::io::sha256_of(std::string(200'000, 'q')));
  CHECK(got.md5 == md5_of(std::string(200'000, 'q')));
  try {
    (void)kd::io::digest_file(path);
    FAIL("a missing file was digested");
  } catch (const kd::file_error& e) {
    CHECK(std::string(e.what()) ==
          "checksum_test.tmp: cannot open: No such file or directory; check the path and its permissions");
  }
}
