/// Files that appear whole or not at all.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/io/file.hpp"
#include "kd/io/file_lock.hpp"

namespace kd::inline KD_ABI::io {

/// Writes `<path>.tmp-<number>` beside the file, and commit() makes it durable and renames it to `path`. Until then,
/// and after any error, an older file of that name stays whole and the temporary is removed. Every error is a
/// file_error.
///
/// - A symbolic link stays, and its target is replaced. Mode and, where permitted, owner are those of the file
///   replaced; further hard links keep the old content.
/// - A file that is write-protected, or that this process may not write, is refused: so is mode 0444 for root.
/// - What is no regular file (a device, a FIFO, /dev/stdout) is written through, at once.
/// - The temporary is locked. Those that killed processes left for `path` are recognised by their free lock and
/// removed.
class atomic_file {
 public:
  explicit atomic_file(std::string path);
  atomic_file(atomic_file&&) = delete;
  ~atomic_file() {
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }

  void write(const void* from, std::size_t count) { write_all(file_, path_, from, count); }
  void write(std::string_view content) { write(content.data(), content.size()); }

  void commit();

 private:
  void make_temporary(const struct stat* replaced);

  std::string path_, target_, temporary_;  // as given; symbolic links followed; empty where there is none
  file_descriptor file_;
};

/// Replaces the file by this content, whole or not at all.
inline void write_file(const std::string& path, std::string_view content) {
  atomic_file file(path);
  file.write(content);
  file.commit();
}

namespace detail {

/// The path of temporary `number` of a file; long names are cut for the longest number, so that all begin alike.
inline std::string temporary_path(const std::string& path, unsigned long number) {
  std::string longest = path_beside(path, ".tmp-4294967295");
  longest.resize(longest.size() - 10);
  return longest + text(number);
}

/// Removes temporaries of `path` that no process holds.
inline void remove_dead_temporaries(const std::string& path) {
  const std::string folder = folder_of(path);
  std::string prefix = temporary_path(path, 0).substr(path.rfind('/') + 1);
  prefix.pop_back();  // the 0
  DIR* const opened = ::opendir(folder.c_str());
  if (opened == nullptr) return;  // writing will say why
  while (const dirent* const entry = ::readdir(opened)) {
    const std::string_view name = entry->d_name;
    if (!name.starts_with(prefix) || name.size() == prefix.size() ||
        name.find_first_not_of("0123456789", prefix.size()) != std::string_view::npos)
      continue;
    const std::string temporary = folder + entry->d_name;
    const file_descriptor file(::open(temporary.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat about {};
    if (file.is_open() && ::fstat(file.get(), &about) == 0 && S_ISREG(about.st_mode) &&
        ::flock(file.get(), LOCK_EX | LOCK_NB) == 0 && still_named(file, temporary))
      ::unlink(temporary.c_str());
  }
  ::closedir(opened);
}

}  // namespace detail

inline atomic_file::atomic_file(std::string path) : path_(std::move(path)), target_(link_target(path_)) {
  struct stat about {};
  const bool there = ::stat(target_.c_str(), &about) == 0;
  if (!there && errno != ENOENT) reject_file(path_, "write", errno);
  if (there && S_ISDIR(about.st_mode)) reject_file(path_, "write", EISDIR);
  if (detail::is_open_file(target_) || (there && !S_ISREG(about.st_mode))) {
    file_ = file_descriptor(::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    if (!file_.is_open()) reject_file(path_, "write", errno);
    return;
  }
  if (there && (about.st_mode & 0222) == 0)
    throw file_error(
        text(path_, ": cannot write: it is write-protected; make it writable (chmod u+w) or name another"));
  if (there && ::faccessat(AT_FDCWD, target_.c_str(), W_OK, AT_EACCESS) != 0) reject_file(path_, "write", errno);
  detail::remove_dead_temporaries(target_);
  make_temporary(there ? &about : nullptr);
}

inline void atomic_file::make_temporary(const struct stat* replaced) {
  const mode_t mode = replaced == nullptr ? 0666 : replaced->st_mode & 0777;
  // The number of this process, or the next one that is free: processes of two containers may have the same.
  const auto first = static_cast<unsigned long>(::getpid());
  for (unsigned long number = first;;) {
    temporary_ = detail::temporary_path(target_, number);
    file_ = file_descriptor(::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode));
    if (!file_.is_open()) {
      const int failed = errno;
      temporary_.clear();  // not this object's
      if (failed != EEXIST || number == first + 1000) reject_file(path_, "write", failed);
      ++number;
      continue;
    }
    // Whoever looks for dead temporaries may have found this one before it was locked, and removed it: once more then.
    // Without locks in this file system nobody removes any.
    while (::flock(file_.get(), LOCK_EX) != 0 && errno == EINTR) {
    }
    if (detail::still_named(file_, temporary_)) break;
  }
  if (replaced == nullptr) return;
  // The owner first: changing it may clear bits of the mode.
  static_cast<void>(::fchown(file_.get(), replaced->st_uid, replaced->st_gid) == 0);
  if (::fchmod(file_.get(), mode) != 0) reject_file(path_, "write", errno);
}

inline void atomic_file::commit() {
  if (temporary_.empty()) {
    if (const int failed = file_.close()) reject_file(path_, "write", failed);
    return;
  }
  if (::fsync(file_.get()) != 0) reject_file(path_, "write", errno);
  // Renamed while it is locked: a free temporary may be removed.
  if (std::rename(temporary_.c_str(), target_.c_str()) != 0) reject_file(path_, "replace", errno);
  temporary_.clear();
  if (const int failed = file_.close()) reject_file(path_, "write", failed);
  // The rename itself is durable once the folder is synced. Some file systems refuse that, and the file is whole
  // either way, so the result is not an error.
  const file_descriptor folder(::open(folder_of(target_).c_str(), O_RDONLY | O_CLOEXEC));
  if (folder.is_open()) static_cast<void>(::fsync(folder.get()));
}

}  // namespace kd::inline KD_ABI::io
