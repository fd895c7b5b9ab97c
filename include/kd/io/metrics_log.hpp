/// A log of metrics as JSON lines: one object per line, each on the disk's way before the next step begins.
#pragma once

#include <fcntl.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/io/atomic_file.hpp"
#include "kd/io/json.hpp"

namespace kd::inline KD_ABI::io {

/// Appends JSON objects to a file, one per line. Move-only.
class metrics_log {
 public:
  /// Starts an empty log, replacing an older one; throws file_error.
  static metrics_log create(const std::string& path) { return metrics_log(path, O_TRUNC); }

  /// Goes on with a log, or starts it where there is none: a last line that a crash cut short is dropped, and so are
  /// the lines whose "epoch" is above `last_epoch`, the last one of the checkpoint. Throws file_error, naming the line,
  /// where another line is not a JSON object; the file is then left as it was.
  static metrics_log resume(const std::string& path,
                            std::uint64_t last_epoch = std::numeric_limits<std::uint64_t>::max());

  /// Writes one object as one line with one system call; throws argument_error where it is not an object.
  void write(const json& object);

  const std::string& path() const { return path_; }

 private:
  metrics_log(std::string path, int flags) : path_(std::move(path)) {
    file_ = file_descriptor(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | flags, 0666));
    if (!file_.is_open()) reject_file(path_, "write", errno);
  }

  std::string path_;
  file_descriptor file_;
};

inline metrics_log metrics_log::resume(const std::string& path, std::uint64_t last_epoch) {
  if (::access(path.c_str(), F_OK) != 0 && errno == ENOENT) return create(path);
  const std::string content = read_file(path);
  std::string kept;
  std::size_t line = 1;
  for (std::string_view rest = content;; ++line) {
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos) break;
    const std::string_view row = rest.substr(0, end);
    const json object = json::parse(row, text(path, ":", line));
    if (!object.is_object())
      throw file_error(text(path, ":", line, ": expected a JSON object, found ", name_of(object.type()),
                            "; the file is not a metrics log: name another, or remove it"));
    const json* const epoch = object.find("epoch");
    if (epoch == nullptr || !epoch->is_number() || !(epoch->as_number() > static_cast<double>(last_epoch)))
      kept.append(row) += '\n';
    rest.remove_prefix(end + 1);
  }
  if (kept.size() != content.size()) write_file(path, kept);
  return metrics_log(path, 0);
}

inline void metrics_log::write(const json& object) {
  if (!object.is_object())
    reject_argument("kd::io::metrics_log::write", "a line must be a JSON object", name_of(object.type()),
                    "build it with json::object()");
  const std::string line = object.dump() + "\n";
  write_all(file_, path_, line.data(), line.size());
}

}  // namespace kd::inline KD_ABI::io
