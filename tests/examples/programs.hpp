/// The example programs, run as a person runs them, and a small CIFAR-10 for them.
#pragma once

#include <sys/wait.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "kd/core/error.hpp"
#include "kd/core/random.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"
#include "support/message.hpp"

namespace kd_test {

struct outcome {
  int code = -1;
  std::string text;  // both streams
};

/// What a shell makes of a script in which $report and $evaluate are the programs.
inline outcome shell(const std::string& script) {
  outcome result;
  const std::string command = kd::text("exec 2>&1; unset KD_DATA; report='", KD_EXAMPLES, "/report'; evaluate='",
                                       KD_EXAMPLES, "/evaluate'; ", script);
  std::FILE* pipe = ::popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  char buffer[4096];
  for (std::size_t n = 0; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) result.text.append(buffer, n);
  const int status = ::pclose(pipe);
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

inline outcome run(const std::string& program, const std::string& arguments) {
  return shell(kd::text("exec \"$", program, "\" ", arguments));
}

/// A CIFAR-10 folder of a few images; the class shows in the brightness.
inline void write_cifar10(const std::string& dir, std::size_t per_file, int bad_label = -1) {
  std::filesystem::create_directories(dir);
  for (const char* name : {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
                           "data_batch_5.bin", "test_batch.bin"}) {
    std::ofstream file(dir + "/" + name, std::ios::binary);
    for (std::size_t n = 0; n < per_file; ++n) {
      const int label = bad_label >= 0 && n == 3 ? bad_label : static_cast<int>(n % 10);
      file.put(static_cast<char>(label));
      for (std::uint32_t e = 0; e < 3072; ++e) {
        const auto word = kd::random_at(1, kd::random_stream::synthetic_data, e, static_cast<std::uint32_t>(n))[0];
        file.put(static_cast<char>(static_cast<unsigned char>(label * 20 + static_cast<int>(word >> 26))));
      }
    }
  }
}

inline std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// What a report printed from its first table to the results' place.
inline std::string tables_of(const std::string& text) {
  const std::size_t begin = text.find("\nTable "), end = text.find("\nresults:");
  return begin == std::string::npos || end == std::string::npos ? "" : text.substr(begin, end - begin);
}

}  // namespace kd_test
