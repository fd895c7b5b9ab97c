#include "kd/io/safetensors.hpp"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "kd/io/file.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"
#include "support/message.hpp"

using kd::io::safetensors_file;
using kd::io::safetensors_writer;

using kd_test::folder;
using kd_test::message_of;
using kd_test::nothing_thrown;

namespace {

using extents = std::vector<std::uint64_t>;

std::vector<float> floats_of(const safetensors_file& file, const char* name, const extents& shape) {
  std::vector<float> values(file.at(name, shape).size());
  file.read(name, shape, values);
  return values;
}
std::vector<std::int64_t> integers_of(const safetensors_file& file, const char* name, const extents& shape) {
  std::vector<std::int64_t> values(file.at(name, shape).size());
  file.read(name, shape, values);
  return values;
}

/// A file of these parts; the header's length is its own unless given.
std::string file_of(const std::string& header, std::size_t data, std::uint64_t length) {
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  return out + header + std::string(data, '\1');
}
std::string file_of(const std::string& header, std::size_t data) { return file_of(header, data, header.size()); }

std::string message_of_file(const folder& here, const std::string& content) {
  // Not kd::io::write_file: its fsync, hundreds of times, would take most of the test's time.
  std::ofstream(here / "w.safetensors", std::ios::binary) << content;
  return message_of([&] { safetensors_file::open(here / "w.safetensors"); });
}

}  // namespace

TEST_CASE("safetensors: the reference implementation's file is read", "[io][safetensors]") {
  const auto file = safetensors_file::open(KD_TEST_DATA "/reference.safetensors");
  REQUIRE(file.list().size() == 9);
  REQUIRE(file.find_metadata("note") != nullptr);
  CHECK(*file.find_metadata("note") == "caf\xc3\xa9 \"quoted\"");
  CHECK(*file.find_metadata("format") == "pt");
  CHECK(file.find_metadata("none") == nullptr);
  CHECK(file.metadata().size() == 2);

  const float infinite = std::numeric_limits<float>::infinity();
  const auto weight = floats_of(file, "features.0.weight", {2, 3});
  CHECK(weight == std::vector<float>{0.0f, -0.0f, 1.0f, -1.5f, 0.1f, std::numeric_limits<float>::max()});
  CHECK(std::signbit(weight[1]));
  const auto half = floats_of(file, "half", {2, 2, 2});
  CHECK(half == std::vector<float>{0.0f, -0.0f, 1.0f, 0x1p-24f, 1023 * 0x1p-24f, 65504.0f, infinite, -infinite});
  CHECK(std::signbit(half[1]));
  CHECK(floats_of(file, "brain", {4}) == std::vector<float>{0.0f, 1.0f, -3.0f, 0x1.FEp127f});
  CHECK(floats_of(file, "double", {2}) == std::vector<float>{0.1f, -2.5f});
  CHECK(integers_of(file, "num_batches_tracked", {}) == std::vector<std::int64_t>{391});
  CHECK(integers_of(file, "labels", {3}) == std::vector<std::int64_t>{-1, 0, 9});
  CHECK(integers_of(file, "bytes", {3}) == std::vector<std::int64_t>{0, 127, 255});
  CHECK(integers_of(file, "mask", {2}) == std::vector<std::int64_t>{1, 0});
  CHECK(floats_of(file, "empty", {0, 5}).empty());
}

TEST_CASE("safetensors: every half converts as its definition says", "[io][safetensors]") {
  int wrong = 0;
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const int exponent = static_cast<int>(bits >> 10 & 31), fraction = static_cast<int>(bits & 1023);
    const float got = kd::io::float_of_half(static_cast<std::uint16_t>(bits));
    const double size = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    const bool right = exponent == 31 ? (fraction == 0 ? std::isinf(got) : std::isnan(got))
                                      : std::abs(static_cast<double>(got)) == size;
    wrong += !right || std::signbit(got) != (bits >= 32768);
  }
  CHECK(wrong == 0);
}

TEST_CASE("safetensors: what is written is read back, aligned, in one order", "[io][safetensors]") {
  const folder here;
  const std::vector<float> weight{1, -2.5f, 1e-40f, std::numeric_limits<float>::quiet_NaN(), 5, 6};
  const std::vector<std::int64_t> count{-7};
  const std::vector<std::uint8_t> bytes{1, 2, 3};
  safetensors_writer writer;
  writer.add("b\"y\tte", "U8", {3}, std::as_bytes(std::span(bytes)));
  writer.add("weight", {3, 1, 2}, std::span<const float>(weight));
  writer.add("none", {0}, std::span<const float>());
  writer.add("count", {}, std::span<const std::int64_t>(count));
  writer.metadata("model", "LightNN");
  writer.write(here / "w.safetensors");

  const std::string raw = kd::io::read_file(here / "w.safetensors");
  std::uint64_t header = 0;
  std::memcpy(&header, raw.data(), 8);
  CHECK(header % 8 == 0);
  CHECK(raw.size() == 8 + header + 8 + 24 + 3);

  const auto file = safetensors_file::open(here / "w.safetensors");
  REQUIRE(file.list().size() == 4);
  CHECK(file.list()[0].name == "count");
  CHECK(file.list()[3].name == "b\"y\tte");
  CHECK(std::memcmp(floats_of(file, "weight", {3, 1, 2}).data(), weight.data(), 24) == 0);
  CHECK(integers_of(file, "count", {}) == count);
  CHECK(integers_of(file, "b\"y\tte", {3}) == std::vector<std::int64_t>{1, 2, 3});
  CHECK(*file.find_metadata("model") == "LightNN");

  writer.write(here / "again.safetensors");
  CHECK(kd::io::read_file(here / "again.safetensors") == raw);
  safetensors_writer().write(here / "w.safetensors");
  CHECK(safetensors_file::open(here / "w.safetensors").list().empty());
}

TEST_CASE("safetensors: a file of another network is named with both shapes", "[io][safetensors]") {
  const auto file = safetensors_file::open(KD_TEST_DATA "/reference.safetensors");
  std::vector<float> six(6);
  std::vector<std::int64_t> integers(6);
  const auto contains = [](const std::string& message, const char* part) {
    INFO(message);
    CHECK(message.find("reference.safetensors: ") != std::string::npos);
    CHECK(message.find(part) != std::string::npos);
  };
  contains(message_of([&] { file.read("fc.weight", extents{6}, six); }),
           "tensor \"fc.weight\" of shape [6] is missing");
  contains(message_of([&] {
             file.read("features.0.weight", extents{3, 2}, six);
           }),
           "tensor \"features.0.weight\": expected shape [3,2], found [2,3]; name a checkpoint of this network");
  contains(message_of([&] { file.read("features.0.weight", extents{2, 3, 1}, six); }), "expected shape [2,3,1]");
  contains(message_of([&] { file.read("labels", extents{3}, std::span(six).first(3)); }),
           "expected dtype F32, F64, F16 or BF16, found I32");
  contains(message_of([&] { file.read("features.0.weight", extents{2, 3}, integers); }), "found F32");
  CHECK_THROWS_AS(file.read("features.0.weight", extents{2, 3}, std::span(six).first(5)), kd::argument_error);
}

TEST_CASE("safetensors: a double beyond float is an error", "[io][safetensors]") {
  const folder here;
  const std::vector<double> values{1, -1e300};
  safetensors_writer writer;
  writer.add("w", "F64", {2}, std::as_bytes(std::span(values)));
  writer.write(here / "w.safetensors");
  const auto file = safetensors_file::open(here / "w.safetensors");
  std::vector<float> to(2);
  CHECK(message_of([&] { file.read("w", extents{2}, to); }).find("32-bit float, found -1e+300") != std::string::npos);
}

TEST_CASE("safetensors: every kind of damage is told apart before any use", "[io][safetensors]") {
  const folder here;
  const auto tensor = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return "{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
  };
  const auto one = [&](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return "{\"w\":" + tensor(dtype, shape, offsets) + "}";
  };
  const auto two = [&](const std::string& a, const std::string& b) { return "{\"a\":" + a + ",\"b\":" + b + "}"; };
  const std::string good = one("F32", "[2]", "[0,8]");
  REQUIRE(message_of_file(here, file_of(good, 8)) == nothing_thrown);
  REQUIRE(message_of_file(here, file_of(good + "   ", 8)) == nothing_thrown);

  const struct {
    std::string content, part;
  } cases[] = {
      {"", "at least 8 bytes, found 0; the file is empty"},
      {"1234567", "at least 8 bytes, found 7"},
      {file_of(good, 8, 0), "header length must be 1 to"},
      {file_of(good, 8, good.size() + 9), "bytes, found " + std::to_string(good.size() + 9)},
      {file_of(good, 8, 200'000'000), "found 200000000"},
      {file_of(good, 8, ~std::uint64_t{0}), "found 18446744073709551615"},
      {file_of(good, 8, good.size() - 1), "header: invalid JSON"},
      {file_of(" " + good, 8), "must begin with '{'"},
      {file_of("[]", 0), "must begin with '{'"},
      {file_of("{\"w\":}", 0), "header: invalid JSON at line 1, column 6"},
      {file_of(two("1", "2").replace(7, 3, "\"a\""), 0), "the name \"a\" appears twice"},
      {file_of("{\"w\":3}", 0), "tensor \"w\": expected {\"dtype\": string"},
      {file_of("{\"w\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8), "tensor \"w\": expected {\"dtype\": string"},
      {file_of(one("F32", "[2.0]", "[0,8]"), 8), "tensor \"w\": expected {\"dtype\": string"},
      {file_of(one("F32", "[-2]", "[0,8]"), 8), "tensor \"w\": expected {\"dtype\": string"},
      {file_of(one("F32", "[2]", "[0,8,8]"), 8), "tensor \"w\": expected {\"dtype\": string"},
      {file_of(one("F31", "[2]", "[0,9]"), 8), "begin <= end <= 8 bytes of data, found [0,9]"},
      {file_of(one("F8_E4M3", "[4294967296,4294967297]", "[0,8]"), 8), "must fit 64 bits"},
      {file_of(good, 4), "begin <= end <= 4 bytes of data, found [0,8]"},
      {file_of(one("F32", "[2]", "[8,0]"), 8), "begin <= end <= 8 bytes of data, found [8,0]"},
      {file_of(one("F32", "[3]", "[0,8]"), 8), "shape [3] of F32 takes 12 bytes, found data_offsets [0,8] of 8"},
      {file_of(one("F32", "[4294967296,4294967296]", "[0,0]"), 0), "must fit 64 bits"},
      {file_of(one("F32", "[4611686018427387906]", "[0,8]"), 8), "must fit 64 bits"},
      {file_of(two(tensor("F32", "[2]", "[0,8]"), tensor("F32", "[2]", "[4,12]")), 12), "\"b\": overlaps the tensor"},
      {file_of(two(tensor("F32", "[2]", "[0,8]"), tensor("F32", "[2]", "[0,8]")), 8), "\"b\": overlaps the tensor"},
      {file_of(two(tensor("F32", "[2]", "[0,8]"), tensor("F32", "[1]", "[12,16]")), 16), "\"b\": leaves a hole before"},
      {file_of(one("F32", "[1]", "[4,8]"), 8), "\"w\": leaves a hole before it: data must begin at byte 0, found 4"},
      {file_of(good, 9), "they end at byte 8, found 9 bytes of data"},
      {file_of("{}", 1), "they end at byte 0, found 1 bytes"},
      {file_of("{\"__metadata__\":[]}", 0), "\"__metadata__\" must be an object of strings, found array"},
      {file_of("{\"__metadata__\":{\"epoch\":3}}", 0), "must hold strings, found integer for \"epoch\""},
  };
  for (const auto& c : cases) {
    const std::string message = message_of_file(here, c.content);
    INFO("expected: " << c.part << "\nmessage:  " << message);
    CHECK(message.rfind(here / "w.safetensors" + ": ", 0) == 0);
    CHECK(message.find(c.part) != std::string::npos);
    CHECK(message.find("; ") != std::string::npos);
  }
}

TEST_CASE("safetensors: null metadata is none, and an unknown dtype matters to nobody until it is read",
          "[io][safetensors]") {
  const folder here;
  REQUIRE(message_of_file(here, file_of("{\"__metadata__\":null,\"w\":{\"dtype\":\"F8_E4M3\",\"shape\":[3],"
                                        "\"data_offsets\":[0,3]},\"v\":{\"dtype\":\"U8\",\"shape\":[2],"
                                        "\"data_offsets\":[3,5]}}",
                                        5)) == nothing_thrown);
  const auto file = safetensors_file::open(here / "w.safetensors");
  CHECK(file.metadata().empty());
  REQUIRE(file.list().size() == 2);
  CHECK(file.list()[0].dtype == "F8_E4M3");
  CHECK(file.list()[0].data.size() == 3);
  CHECK(integers_of(file, "v", {2}) == std::vector<std::int64_t>{1, 1});
  CHECK(message_of([&] { floats_of(file, "w", {3}); }).find("found F8_E4M3; save it as") != std::string::npos);
  CHECK(message_of([&] { integers_of(file, "w", {3}); }).find("found F8_E4M3; save it as") != std::string::npos);
}

TEST_CASE("safetensors: an unsigned integer beyond the signed ones is an error", "[io][safetensors]") {
  const folder here;
  const std::vector<std::uint64_t> values{7, ~std::uint64_t{0}};
  safetensors_writer writer;
  writer.add("small", "U64", {1}, std::as_bytes(std::span(values).first(1)));
  writer.add("large", "U64", {2}, std::as_bytes(std::span(values)));
  writer.write(here / "w.safetensors");
  const auto file = safetensors_file::open(here / "w.safetensors");
  CHECK(integers_of(file, "small", {1}) == std::vector<std::int64_t>{7});
  CHECK(message_of([&] { integers_of(file, "large", {2}); }).find("found 18446744073709551615") != std::string::npos);
}

TEST_CASE("safetensors: a file cut anywhere is rejected", "[io][safetensors]") {
  const folder here;
  const std::string whole = kd::io::read_file(KD_TEST_DATA "/reference.safetensors");
  int accepted = 0;
  for (std::size_t size = 0; size < whole.size(); ++size)
    accepted += message_of_file(here, whole.substr(0, size)) == nothing_thrown;
  CHECK(accepted == 0);
  CHECK(message_of_file(here, whole) == nothing_thrown);
}

TEST_CASE("safetensors: the writer rejects what it could not read, and keeps the older file", "[io][safetensors]") {
  const folder here;
  const std::vector<float> values(6);
  safetensors_writer writer;
  const auto add = [&](const char* name, const char* dtype, const extents& shape) {
    return message_of([&] { writer.add(name, dtype, shape, std::as_bytes(std::span(values))); });
  };
  REQUIRE(add("w", "F32", {2, 3}) == nothing_thrown);
  CHECK(add("w", "F32", {2, 3}).find("given once, received w") != std::string::npos);
  CHECK(add("__metadata__", "F32", {2, 3}).find("must be UTF-8") != std::string::npos);
  CHECK(add("\xff", "F32", {2, 3}).find("must be UTF-8") != std::string::npos);
  CHECK(add("v", "float", {2, 3}).find("received float") != std::string::npos);
  CHECK(add("v", "F32", {2, 4}).find("must have 32 bytes, received 24") != std::string::npos);
  CHECK(add("v", "F32", {1ull << 40, 1ull << 40}).find("received 24") != std::string::npos);
  writer.write(here / "w.safetensors");
  CHECK(safetensors_file::open(here / "w.safetensors").list().size() == 1);
  CHECK_THROWS_AS(writer.write(here / "none/w.safetensors"), kd::file_error);
}

TEST_CASE("safetensors: a file opened before the work is written as one named after it", "[io][safetensors]") {
  const folder dir;
  const std::vector<float> values{1, 2, 3};
  safetensors_writer writer;
  writer.add("x", {3}, values);
  {
    kd::io::atomic_file file(dir / "before");
    writer.write(file);
  }
  writer.write(dir / "after");
  CHECK(kd::io::read_file(dir / "before") == kd::io::read_file(dir / "after"));
  CHECK(dir.entries() == 2);
}
