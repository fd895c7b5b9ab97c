/// Options of the programs that a script starts: --NAME VALUE.
#pragma once

#include <string>
#include <string_view>

namespace kd_bench {

/// What follows NAME on the command line, or `otherwise`.
inline std::string option(int argc, char** argv, std::string_view name, const char* otherwise) {
  for (int i = 1; i + 1 < argc; ++i)
    if (argv[i] == name) return argv[i + 1];
  return otherwise;
}

}  // namespace kd_bench
