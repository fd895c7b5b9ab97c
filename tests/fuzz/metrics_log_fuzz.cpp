/// A log that a run of three epochs goes on with: refused and left as it was, or each line of it is an object
/// afterwards, and the epochs are those of the run.
#include <vector>

#include "fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const kd_fuzz::bytes input = kd_fuzz::bytes_of(data, size);
  const std::string path = kd_fuzz::file_with(input);
  const bool accepted = kd_fuzz::accepts([&] {
    const auto line = [](int epoch) {
      kd::io::json object = kd::io::json::object();
      object["epoch"] = epoch;
      return object;
    };
    kd::io::metrics_log::resume(path, std::vector<kd::io::json>{line(1), line(2), line(3)}).write(line(4));
  });
  const std::string after = kd::io::read_file(path);
  if (!accepted) {
    kd_fuzz::require(after == input, "a refused log is left as it was");
    return 0;
  }
  std::size_t lines_of[5] = {};
  for (kd_fuzz::bytes rest = after; !rest.empty();) {
    const std::size_t end = rest.find('\n');
    kd_fuzz::require(end != kd_fuzz::bytes::npos, "the last line is whole");
    const kd::io::json line = kd::io::json::parse(rest.substr(0, end));
    kd_fuzz::require(line.is_object(), "a line is an object");
    if (const kd::io::json* epoch = line.find("epoch"); epoch != nullptr && epoch->is_number()) {
      const double number = epoch->as_number();
      kd_fuzz::require(number == 1 || number == 2 || number == 3 || number == 4, "an epoch is one of the run");
      ++lines_of[static_cast<std::size_t>(number)];
    }
    rest.remove_prefix(end + 1);
  }
  kd_fuzz::require(lines_of[1] > 0 && lines_of[2] > 0 && lines_of[3] > 0 && lines_of[4] == 1, "no epoch is lost");
  return 0;
}
