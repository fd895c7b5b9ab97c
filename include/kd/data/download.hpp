/// Fetches the official CIFAR archives: curl and tar as child processes (no shell), checksums before unpacking.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/data/cifar.hpp"
#include "kd/io/checksum.hpp"
#include "kd/io/file_lock.hpp"
#include "kd/io/program.hpp"

namespace kd::inline KD_ABI::data {

/// The two sets of the CIFAR family.
enum class cifar_set { cifar10, cifar100 };

/// Where an archive is and what it must be; an empty checksum is not checked, but one of the two must be given.
struct archive {
  std::string url = {};
  std::string sha256 = {}, md5 = {};  // hexadecimal
};

/// The archives of https://www.cs.toronto.edu/~kriz/cifar.html (MD5 from there; SHA-256 as Ruby's torchvision and
/// Julia's MLDatasets have it): 170,052,171 and 168,513,733 bytes.
archive official_archive(cifar_set which);

/// Fetches, checks and unpacks an archive into `dir`/cifar-10-batches-bin or `dir`/cifar-100-binary, which then can be
/// loaded. Works in `dir`/.kd-download and moves the finished set into place; a failure leaves what was there before
/// and nothing else. Errors: file_error (no curl or tar, no connection, a checksum that differs, an archive without the
/// set, no permission, another process that fetches into `dir`); argument_error without any checksum.
void download_cifar(cifar_set which, const std::filesystem::path& dir, const archive& from);

/// The same from the official address.
inline void download_cifar(cifar_set which, const std::filesystem::path& dir) {
  download_cifar(which, dir, official_archive(which));
}

inline archive official_archive(cifar_set which) {
  switch (which) {
    case cifar_set::cifar10:
      return {"https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
              "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", "c32a1d4ab5d03f1284b67883e8d87530"};
    case cifar_set::cifar100:
      return {"https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
              "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec", "03b5dce01913d631647c71ecec9e9cb8"};
  }
  reject_argument("kd::data::official_archive", "which must be cifar10 or cifar100", static_cast<int>(which),
                  "pass kd::data::cifar_set::cifar10");
}

namespace detail {

/// Runs a program and waits; its exit status. Throws file_error where it cannot be started.
inline int run(const std::vector<std::string>& arguments) {
  const int status = io::run_program(arguments);
  if (status == io::not_started)
    throw file_error(text(arguments[0], ": cannot be started; install it (apt install ", arguments[0],
                          "), or unpack the archive by hand and pass its folder"));
  return status;
}

/// What the exit status of curl means, as its manual has it.
inline std::string_view curl_failure(int status) {
  switch (status) {
    case 1:
    case 3:
      return "the address is malformed or of an unsupported protocol";
    case 6:
      return "the host name was not resolved";
    case 7:
      return "the host refused the connection";
    case 22:
      return "the server answered with an error";
    case 23:
      return "the archive could not be written: is the disk full?";
    case 28:
      return "the connection timed out";
    case 35:
    case 60:
      return "the TLS connection failed";
    case 37:
      return "the file could not be read";
    default:
      return "see curl's own message above";
  }
}

/// The folder DIR/.kd-download, removed with all it holds at the end of its life. One process at a time has it: what is
/// there before was left by one that was killed.
class download_folder {
 public:
  explicit download_folder(const std::filesystem::path& parent) : path_(parent / ".kd-download") {
    std::error_code status;
    std::filesystem::create_directories(parent, status);
    if (!status) {
      lock_.emplace((parent / ".kd-download.lock").string(), parent.string(), "wait until it has fetched the set");
      std::filesystem::remove_all(path_, status);
      if (!status) std::filesystem::create_directory(path_, status);
    }
    if (status)
      throw file_error(text(parent.string(), ": cannot create a folder in it: ", status.message(),
                            "; pass a folder that can be written"));
  }
  ~download_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  download_folder(const download_folder&) = delete;
  download_folder& operator=(const download_folder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  std::optional<io::file_lock> lock_;
};

inline void fetch(const std::string& url, const std::string& file) {
  std::vector<std::string> curl = {"curl", "--fail", "--location", "--show-error", "--connect-timeout", "30"};
  curl.insert(curl.end(), {"--proto", "=https,http,file", "--proto-redir", "=https,http"});
  curl.push_back(isatty(STDERR_FILENO) ? "--progress-bar" : "--silent");
  curl.insert(curl.end(), {"--output", file, "--url", url});
  if (const int status = run(curl); status != 0) {
    throw file_error(
        text(url, ": curl failed with exit status ", status, " (", curl_failure(status),
             "); check the address and the connection, or fetch it by hand, unpack it and pass its folder"));
  }
}

inline void check_digests(const std::string& file, const archive& from) {
  const io::file_digests got = io::digest_file(file);
  const auto check = [&](std::string_view kind, const std::string& expected, const std::string& received) {
    std::string lower = expected;
    for (char& c : lower) c = c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c;
    if (expected.empty() || lower == received) return;
    throw file_error(text(from.url, ": expected ", kind, " ", expected, ", got ", received, " (", got.bytes,
                          " bytes); the archive is damaged or not the official one and was removed: try again"));
  };
  check("MD5", from.md5, got.md5);
  check("SHA-256", from.sha256, got.sha256);
}

}  // namespace detail

inline void download_cifar(cifar_set which, const std::filesystem::path& dir, const archive& from) {
  if (from.sha256.empty() && from.md5.empty()) {
    reject_argument("kd::data::download_cifar", "sha256 or md5 must be given", "neither",
                    "pass the archive's checksum, so that a damaged download cannot pass for data");
  }
  const detail::cifar_layout layout =
      which == cifar_set::cifar10 ? detail::cifar10_layout() : detail::cifar100_layout();
  const detail::download_folder work(dir);
  const std::string file = (work.path() / "archive.tar.gz").string();
  detail::fetch(from.url, file);
  detail::check_digests(file, from);
  const std::vector<std::string> tar = {"tar", "-xzf", file, "-C", work.path().string(), "--no-same-owner"};
  if (const int status = detail::run(tar); status != 0) {
    throw file_error(text(from.url, ": tar failed with exit status ", status,
                          " on the fetched archive; it must be a .tar.gz, and the disk must have room for 180 MB"));
  }
  const std::filesystem::path made = work.path() / layout.folder, target = dir / layout.folder;
  if (!detail::holds(made, layout)) {
    throw file_error(text(from.url, ": expected the folder ", layout.folder, " with ", layout.test_file,
                          " in the archive, got an archive without it; pass an archive of ", layout.name));
  }
  std::error_code status;
  if (std::filesystem::exists(target, status)) std::filesystem::rename(target, work.path() / "replaced", status);
  if (!status) std::filesystem::rename(made, target, status);
  if (status) {
    throw file_error(text(target.string(), ": cannot be written: ", status.message(), "; check its permissions"));
  }
}

}  // namespace kd::inline KD_ABI::data
