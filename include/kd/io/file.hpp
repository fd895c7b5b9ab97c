/// Files of POSIX: reading and writing with messages that name the file, the reason and the remedy.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
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
/// The whole file as text; what is no regular file (a FIFO, a device) is read to its end.
std::string read_file(const std::string& path);
/// Whether there is something of that name, symbolic links followed; throws file_error where that cannot be seen.
bool file_exists(const std::string& path);
/// The folder of a path, with its last slash; "./" where the path names none.
std::string folder_of(const std::string& path);
/// The path with a suffix after its name, which is shortened where both are longer than the 255 bytes that a name may
/// have: a digest of the whole name then keeps two long names apart.
std::string path_beside(const std::string& path, std::string_view suffix);

namespace detail {

constexpr std::string_view remedy_of(int error_number) {
  switch (error_number) {
    case ENOENT:
      return "check the path, and create its folder first";
    case ENOTDIR:
      return "a part of the path is a file, not a folder: correct the path";
    case EISDIR:
      return "the path is a folder: name a file";
    case ELOOP:
      return "its symbolic links lead in a circle: correct them";
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
  std::string content(file_size(file, path) + 1, '\0');  // one more byte, so that the file's end is met
  for (std::size_t done = 0;;) {
    const auto got = ::read(file.get(), content.data() + done, content.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) reject_file(path, "read", errno);
    done += static_cast<std::size_t>(got);
    if (got == 0) {
      content.resize(done);
      return content;
    }
    if (done == content.size()) content.resize(std::max<std::size_t>(2 * done, 4096));
  }
}

inline bool file_exists(const std::string& path) {
  struct stat about {};
  if (::stat(path.c_str(), &about) == 0) return true;
  if (errno != ENOENT && errno != ENOTDIR) reject_file(path, "read", errno);
  return false;
}

inline std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "./" : path.substr(0, slash + 1);
}

inline std::string path_beside(const std::string& path, std::string_view suffix) {
  constexpr std::size_t longest_name = 255, digest_digits = 17;
  const std::size_t begin = path.rfind('/') + 1;  // npos + 1 is 0
  if (path.size() - begin + suffix.size() <= longest_name) return path + std::string(suffix);
  std::uint64_t digest = 0xcbf29ce484222325;  // FNV-1a
  for (std::size_t i = begin; i < path.size(); ++i)
    digest = (digest ^ static_cast<unsigned char>(path[i])) * 0x100000001b3;
  std::string shortened = path.substr(0, begin + longest_name - digest_digits - suffix.size());
  shortened += '-';
  for (int shift = 60; shift >= 0; shift -= 4) shortened += "0123456789abcdef"[digest >> shift & 15];
  return shortened.append(suffix);
}

}  // namespace kd::inline KD_ABI::io
