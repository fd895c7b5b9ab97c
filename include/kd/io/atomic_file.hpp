/// Files that appear whole or not at all, and reading with messages that name the file, the reason and the remedy.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"

namespace kd::inline KD_ABI::io {

/// Throws file_error: "FILE: cannot ACTION: ERRNO TEXT; REMEDY".
[[noreturn]] void reject_file(std::string_view path, std::string_view action, int error_number);

/// A POSIX file descriptor, closed by the destructor; move-only.
class file_descriptor {
 public:
  file_descriptor() = default;
  explicit file_descriptor(int number) : number_(number) {}
  file_descriptor(file_descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  file_descriptor& operator=(file_descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~file_descriptor() {
    if (number_ >= 0) ::close(number_);
  }

  int get() const { return number_; }
  bool is_open() const { return number_ >= 0; }
  /// Closes now; returns errno, or 0.
  int close() { return ::close(std::exchange(number_, -1)) == 0 ? 0 : errno; }

 private:
  int number_ = -1;
};

/// Opens for reading; throws file_error where that fails or the path is a folder.
file_descriptor open_for_reading(const std::string& path);
/// Size in bytes of an open file.
std::size_t file_size(const file_descriptor& file, std::string_view path);
/// Reads exactly `count` bytes from the current position; throws file_error where the file ends before.
void read_exactly(const file_descriptor& file, std::string_view path, void* to, std::size_t count);
/// Writes all bytes, or throws file_error.
void write_all(const file_descriptor& file, std::string_view path, const void* from, std::size_t count);
/// The whole file as text.
std::string read_file(const std::string& path);

/// Writes `<path>.tmp-<pid>` beside the file, and commit() makes it durable and renames it to `path`. Until then, and
/// after any error, an older file of that name stays whole and the temporary is removed. Not for two writers of one
/// path in one process. Every error is a file_error.
class atomic_file {
 public:
  explicit atomic_file(std::string path) : path_(std::move(path)), temporary_(text(path_, ".tmp-", ::getpid())) {
    ::unlink(temporary_.c_str());  // left by a process that crashed under the same number
    file_ = file_descriptor(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (!file_.is_open()) reject_file(path_, "write", errno);
  }
  atomic_file(atomic_file&&) = delete;
  ~atomic_file() {
    if (!committed_) ::unlink(temporary_.c_str());
  }

  void write(const void* from, std::size_t count) { write_all(file_, path_, from, count); }
  void write(std::string_view content) { write(content.data(), content.size()); }

  void commit() {
    if (::fsync(file_.get()) != 0) reject_file(path_, "write", errno);
    if (const int failed = file_.close()) reject_file(path_, "write", failed);
    if (std::rename(temporary_.c_str(), path_.c_str()) != 0) reject_file(path_, "replace", errno);
    committed_ = true;
    // The rename itself is durable once the folder is synced. Some file systems refuse that, and the file is whole
    // either way, so the result is not an error.
    const std::size_t slash = path_.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
    const file_descriptor opened(::open(folder.c_str(), O_RDONLY | O_CLOEXEC));
    if (opened.is_open()) static_cast<void>(::fsync(opened.get()));
  }

 private:
  std::string path_, temporary_;
  file_descriptor file_;
  bool committed_ = false;
};

/// Replaces the file by this content, whole or not at all.
inline void write_file(const std::string& path, std::string_view content) {
  atomic_file file(path);
  file.write(content);
  file.commit();
}

namespace detail {

constexpr std::string_view remedy_of(int error_number) {
  switch (error_number) {
    case ENOENT:
      return "check the path, and create its folder first";
    case ENOTDIR:
      return "a part of the path is a file, not a folder: correct the path";
    case EISDIR:
      return "the path is a folder: name a file";
    case EACCES:
    case EPERM:
      return "grant the permission (chmod, chown) or choose another folder";
    case EROFS:
      return "the file system is read-only: choose another folder";
    case ENOSPC:
    case EDQUOT:
      return "free some disk space or choose another disk";
    case EFBIG:
      return "the limit on file sizes is reached: raise it (ulimit -f) or choose another disk";
    case EMFILE:
    case ENFILE:
      return "close some files or raise the limit (ulimit -n)";
    case ENAMETOOLONG:
      return "choose a shorter path";
    case EIO:
      return "the disk reports a fault: check it, or choose another";
    default:
      return "check the path and its disk";
  }
}

}  // namespace detail

[[noreturn]] inline void reject_file(std::string_view path, std::string_view action, int error_number) {
  throw file_error(text(path, ": cannot ", action, ": ", std::generic_category().message(error_number), "; ",
                        detail::remedy_of(error_number)));
}

inline file_descriptor open_for_reading(const std::string& path) {
  file_descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.is_open()) reject_file(path, "read", errno);
  struct stat about {};
  if (::fstat(file.get(), &about) != 0) reject_file(path, "read", errno);
  if (S_ISDIR(about.st_mode)) reject_file(path, "read", EISDIR);
  return file;
}

inline std::size_t file_size(const file_descriptor& file, std::string_view path) {
  struct stat about {};
  if (::fstat(file.get(), &about) != 0) reject_file(path, "read", errno);
  return static_cast<std::size_t>(about.st_size);
}

inline void read_exactly(const file_descriptor& file, std::string_view path, void* to, std::size_t count) {
  for (std::size_t done = 0; done < count;) {
    const auto got = ::read(file.get(), static_cast<char*>(to) + done, count - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) reject_file(path, "read", errno);
    if (got == 0)
      throw file_error(text(path, ": the file ends early: expected ", count, " more bytes, found ", done,
                            "; it is cut: copy or write it again"));
    done += static_cast<std::size_t>(got);
  }
}

inline void write_all(const file_descriptor& file, std::string_view path, const void* from, std::size_t count) {
  for (std::size_t done = 0; done < count;) {
    const auto put = ::write(file.get(), static_cast<const char*>(from) + done, count - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) reject_file(path, "write", errno);
    done += static_cast<std::size_t>(put);
  }
}

inline std::string read_file(const std::string& path) {
  const file_descriptor file = open_for_reading(path);
  std::string content(file_size(file, path), '\0');
  read_exactly(file, path, content.data(), content.size());
  return content;
}

}  // namespace kd::inline KD_ABI::io
