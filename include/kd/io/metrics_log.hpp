/// A log of metrics as JSON lines: one object per line, each on the disk's way before the next step begins.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/io/atomic_file.hpp"
#include "kd/io/file.hpp"
#include "kd/io/file_lock.hpp"
#include "kd/io/json.hpp"

namespace kd::inline KD_ABI::io {

/// Appends JSON objects to a file, one per line. A log has one writer: a second one, in this or another process, is
/// refused with a message that names the first (file_lock::of). Move-only.
class metrics_log {
 public:
  /// Starts an empty log, replacing an older one; throws file_error.
  static metrics_log create(const std::string& path) { return metrics_log(path, file_lock::of(path), O_TRUNC); }

  /// Goes on with a log, or starts it where there is none: a last line that a crash cut short is dropped. Throws
  /// file_error, naming the line, where another line is not a JSON object; the file is then left as it was.
  static metrics_log resume(const std::string& path) { return resume(path, nullptr); }

  /// The same for a run that has done these epochs, objects with "epoch" in rising order: lines of other epochs are
  /// dropped, and the epochs that the log lacks are written at their place, as they are given here.
  static metrics_log resume(const std::string& path, std::span<const json> epochs) { return resume(path, &epochs); }

  /// Writes one object as one line with one system call; throws argument_error where it is not an object, and
  /// file_error where the line cannot be written: the log then ends with the line before.
  void write(const json& object);

  const std::string& path() const { return path_; }

 private:
  metrics_log(std::string path, file_lock&& lock, int flags) : path_(std::move(path)), lock_(std::move(lock)) {
    file_ = file_descriptor(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | flags, 0666));
    if (!file_.is_open()) reject_file(path_, "write", errno);
  }
  static metrics_log resume(const std::string& path, const std::span<const json>* epochs);

  std::string path_;
  file_lock lock_;
  file_descriptor file_;
};

namespace detail {

/// A line of a log as it stands there, and its "epoch".
struct log_line {
  std::string_view row;
  std::optional<double> epoch;
};

inline std::optional<double> epoch_of(const json& line) {
  const json* const epoch = line.find("epoch");
  return epoch != nullptr && epoch->is_number() ? std::optional(epoch->as_number()) : std::nullopt;
}

/// The whole lines of a log; the last one may lack its newline, and is whole all the same where it is JSON.
inline std::vector<log_line> whole_lines(const std::string& path, std::string_view content) {
  std::vector<log_line> lines;
  while (!content.empty()) {
    const std::string place = text(path, ":", lines.size() + 1);
    const std::size_t end = content.find('\n');
    const std::string_view row = content.substr(0, end);
    content.remove_prefix(end == std::string_view::npos ? content.size() : end + 1);
    json object;
    try {
      object = json::parse(row, place);
    } catch (const file_error&) {
      if (end == std::string_view::npos) break;
      throw;
    }
    if (!object.is_object())
      throw file_error(text(place, ": expected a JSON object, found ", name_of(object.type()),
                            "; the file is not a metrics log: name another, or remove it"));
    lines.push_back({row, epoch_of(object)});
  }
  return lines;
}

/// The log of a run that has done these epochs.
inline std::string with_epochs(const std::vector<log_line>& lines, std::span<const json> epochs) {
  std::string out;
  std::size_t next = 0;
  const auto among = [](const auto& all, double epoch, const auto& epoch_of_one) {
    return std::any_of(all.begin(), all.end(), [&](const auto& one) { return epoch_of_one(one) == epoch; });
  };
  const auto add_missing_before = [&](double limit) {
    for (; next < epochs.size(); ++next) {
      const double epoch = epochs[next].at("epoch").as_number();
      if (!(epoch < limit)) return;
      if (!among(lines, epoch, [](const log_line& line) { return line.epoch; })) out += epochs[next].dump() + "\n";
    }
  };
  for (const log_line& line : lines) {
    if (line.epoch && !among(epochs, *line.epoch, epoch_of)) continue;
    if (line.epoch) add_missing_before(*line.epoch);
    out.append(line.row) += '\n';
  }
  add_missing_before(std::numeric_limits<double>::infinity());
  return out;
}

}  // namespace detail

inline metrics_log metrics_log::resume(const std::string& path, const std::span<const json>* epochs) {
  file_lock lock = file_lock::of(path);
  struct stat about {};
  const bool there = ::stat(path.c_str(), &about) == 0;
  if (there && !S_ISREG(about.st_mode)) return metrics_log(path, std::move(lock), 0);  // a FIFO is not read back
  const std::string content = there ? read_file(path) : "";
  const std::vector<detail::log_line> lines = detail::whole_lines(path, content);
  std::string wanted;
  if (epochs != nullptr) wanted = detail::with_epochs(lines, *epochs);
  if (epochs == nullptr)
    for (const detail::log_line& line : lines) wanted.append(line.row) += '\n';
  if (wanted != content) write_file(path, wanted);
  return metrics_log(path, std::move(lock), 0);
}

inline void metrics_log::write(const json& object) {
  if (!object.is_object())
    reject_argument("kd::io::metrics_log::write", "a line must be a JSON object", name_of(object.type()),
                    "build it with json::object()");
  const std::string line = object.dump() + "\n";
  struct stat before {};
  const bool regular = ::fstat(file_.get(), &before) == 0 && S_ISREG(before.st_mode);
  try {
    write_all(file_, path_, line.data(), line.size());
  } catch (const file_error&) {
    // Half a line, as a full disk leaves it, would spoil the next one.
    if (regular) static_cast<void>(::ftruncate(file_.get(), before.st_size) == 0);
    throw;
  }
}

}  // namespace kd::inline KD_ABI::io
