/// One writer at a time: a lock on a file or a folder, which says who holds it.
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <string>
#include <string_view>
#include <utility>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/io/file.hpp"

namespace kd::inline KD_ABI::io {

/// An advisory lock (flock) on a small file that names its holder, held for the life of the object. The kernel lets go
/// of it when the process ends, however it ends, so that what a killed process left never stands in the way; two
/// objects of one process exclude each other as well. Move-only.
///
/// Where the file system has no locks, none is taken: two writers are then not noticed.
class file_lock {
 public:
  /// Takes the lock `lock_path`, a file that is made for this and removed at the end. Throws file_error "SUBJECT: is in
  /// use by process 1234 on HOST since TIME: COMMAND; REMEDY" where it is held, or where the file cannot be made.
  file_lock(std::string lock_path, std::string_view subject, std::string_view remedy);

  /// Takes the lock of a file that is to be written: FILE.lock beside it, beside its target where it is a symbolic
  /// link. None for a device or a FIFO, which may have many writers. Errors as above.
  static file_lock of(const std::string& file, std::string_view remedy = "wait for it, end it, or name another file");

  file_lock(file_lock&&) noexcept = default;
  file_lock& operator=(file_lock&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(file_, other.file_);
    return *this;
  }
  ~file_lock();

 private:
  file_lock() = default;

  std::string path_;
  file_descriptor file_;
};

/// Where a write to `path` ends, symbolic links followed, also one whose target is not there yet. Links into /proc and
/// /dev/fd, which stand for open files, are not followed.
std::string link_target(std::string path);

namespace detail {

/// Whether the path still names this open file.
inline bool still_named(const file_descriptor& file, const std::string& path) {
  struct stat opened {
  }, named{};
  return ::fstat(file.get(), &opened) == 0 && ::lstat(path.c_str(), &named) == 0 && opened.st_dev == named.st_dev &&
         opened.st_ino == named.st_ino;
}

/// A link that stands for an open file of a process, whatever its text says.
inline bool is_open_file(std::string_view path) {
  return path.starts_with("/proc/") || path.starts_with("/dev/fd/") || path == "/dev/stdout" || path == "/dev/stderr";
}

/// "1234 on HOST since 2026-11-26 01:16:12 UTC: report --data ...", one line.
inline std::string this_process() {
  char host[256] = "", now[64] = "";
  if (::gethostname(host, sizeof host - 1) != 0) host[0] = '\0';
  const std::time_t seconds = std::time(nullptr);
  std::tm parts{};
  if (::gmtime_r(&seconds, &parts) != nullptr) std::strftime(now, sizeof now, "%Y-%m-%d %H:%M:%S UTC", &parts);
  std::string out = text(static_cast<long>(::getpid()), " on ", host, " since ", now);
  const file_descriptor command(::open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC));  // Linux alone has it
  char words[512];
  const auto length = command.is_open() ? ::read(command.get(), words, sizeof words) : 0;
  if (length <= 0) return out;
  out += ": ";
  // Words end in '\0'; other control characters would reach the terminal of whoever reads the message.
  for (char c : std::string_view(words, static_cast<std::size_t>(length) - 1))
    out += static_cast<unsigned char>(c) < ' ' || c == '\x7f' ? ' ' : c;
  return out;
}

}  // namespace detail

inline std::string link_target(std::string path) {
  for (int followed = 0; followed < 40; ++followed) {
    char target[4096];
    const auto length = detail::is_open_file(path) ? -1 : ::readlink(path.c_str(), target, sizeof target);
    if (length < 0) return path;
    if (static_cast<std::size_t>(length) == sizeof target) reject_file(path, "read", ENAMETOOLONG);
    const std::string_view next(target, static_cast<std::size_t>(length));
    path = text(next.starts_with('/') ? "" : folder_of(path), next);
  }
  reject_file(path, "write", ELOOP);
}

inline file_lock::file_lock(std::string lock_path, std::string_view subject, std::string_view remedy)
    : path_(std::move(lock_path)) {
  for (;;) {
    file_ = file_descriptor(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666));
    if (!file_.is_open()) reject_file(subject, "write", errno);
    if (::flock(file_.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EINTR) continue;
      if (errno != EWOULDBLOCK) break;  // a file system without locks
      const std::string holder = read_file(path_);
      throw file_error(
          text(subject, ": is in use by ", holder.empty() ? "another process" : "process ", holder, "; ", remedy));
    }
    // The holder before may have removed the file after it was opened here: the lock is then on a file without a name.
    if (detail::still_named(file_, path_)) break;
  }
  // The lock holds without the text, for which a full disk may have no space.
  const std::string holder = detail::this_process();
  if (::ftruncate(file_.get(), 0) == 0) static_cast<void>(::write(file_.get(), holder.data(), holder.size()) >= 0);
}

inline file_lock file_lock::of(const std::string& file, std::string_view remedy) {
  struct stat about {};
  const std::string target = link_target(file);
  if (detail::is_open_file(target) || (::stat(target.c_str(), &about) == 0 && !S_ISREG(about.st_mode))) return {};
  return {path_beside(target, ".lock"), file, remedy};
}

inline file_lock::~file_lock() {
  // Removed while it is still held; and only what this object made, wherever the path leads by now.
  if (file_.is_open() && detail::still_named(file_, path_)) ::unlink(path_.c_str());
}

}  // namespace kd::inline KD_ABI::io
