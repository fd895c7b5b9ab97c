/// What is accepted is written and read back as the same value, on one line and indented.
#include "fuzz/fuzz.hpp"

#include <cmath>

namespace {

void same(const kd::io::json& a, const kd::io::json& b) {
  using kd_fuzz::require;
  require(a.is_number() == b.is_number(), "a number comes back as a number");
  if (a.is_number()) {
    require(a.as_number() == b.as_number(), "a number comes back equal");
    require(std::signbit(a.as_number()) == std::signbit(b.as_number()), "a number keeps its sign");
    return;
  }
  require(a.type() == b.type(), "a value comes back as its kind");
  require(a.names() == b.names() && a.size() == b.size(), "members and elements come back");
  if (a.is_string()) require(a.as_string() == b.as_string(), "a string comes back equal");
  for (std::size_t i = 0; i < a.size(); ++i) same(a.items()[i], b.items()[i]);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  kd_fuzz::accepts([&] {
    const kd::io::json value = kd::io::json::parse(kd_fuzz::bytes_of(data, size));
    same(value, kd::io::json::parse(value.dump()));
    same(value, kd::io::json::parse(value.dump(2)));
  });
  return 0;
}
