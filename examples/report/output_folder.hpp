/// The folder of a report: made, checked and locked before any work is done.
#pragma once

#include <kd/io/file.hpp>
#include <kd/io/file_lock.hpp>

#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <system_error>

namespace report {

/// The output folder with weights/, state/ and logs/. One process at a time has it, for the life of the object: a
/// second one would lose results of the first. Throws kd::file_error where the folder is in use or cannot be made or
/// written.
class output_folder {
 public:
  explicit output_folder(const std::filesystem::path& path)
      : lock_(((make(path), path / "lock")).string(), path.string(), "wait for it, end it, or give another --out") {
    for (const char* part : {"weights", "state", "logs"}) make(path / part);
  }

 private:
  static void make(const std::filesystem::path& path) {
    std::error_code status;
    std::filesystem::create_directories(path, status);
    if (status) kd::io::reject_file(path.string(), "make the folder", status.value());
    if (::access(path.c_str(), W_OK | X_OK) != 0) kd::io::reject_file(path.string(), "write into the folder", errno);
  }

  kd::io::file_lock lock_;
};

}  // namespace report
