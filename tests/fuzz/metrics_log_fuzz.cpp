/// A log that is gone on with: refused and left as it was, or each line of it is an object afterwards.
#include "fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const kd_fuzz::bytes input = kd_fuzz::bytes_of(data, size);
  const std::string path = kd_fuzz::file_with(input);
  const bool accepted = kd_fuzz::accepts([&] {
    kd::io::metrics_log log = kd::io::metrics_log::resume(path, 3);
    kd::io::json line = kd::io::json::object();
    line["epoch"] = 4;
    log.write(line);
  });
  const std::string after = kd::io::read_file(path);
  if (!accepted) {
    kd_fuzz::require(after == input, "a refused log is left as it was");
    return 0;
  }
  for (kd_fuzz::bytes rest = after; !rest.empty();) {
    const std::size_t end = rest.find('\n');
    kd_fuzz::require(end != kd_fuzz::bytes::npos, "the last line is whole");
    kd_fuzz::require(kd::io::json::parse(rest.substr(0, end)).is_object(), "a line is an object");
    rest.remove_prefix(end + 1);
  }
  return 0;
}
