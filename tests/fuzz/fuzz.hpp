/// What the fuzz targets share: a file with the bytes that were given, and the rule that they hold the readers to.
#pragma once

#include <kd/kd.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "support/folder.hpp"

namespace kd_fuzz {

using bytes = std::string_view;

inline bytes bytes_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// Ends the process, so that libFuzzer keeps the input: the rule that was broken.
inline void require(bool holds, const char* rule) {
  if (holds) return;
  std::fprintf(stderr, "kd fuzz: broken rule: %s\n", rule);
  std::abort();
}

/// Reads something: it is accepted, or refused with a message, never anything else.
template <class Read>
bool accepts(const Read& read) {
  try {
    read();
    return true;
  } catch (const kd::error& e) {
    require(e.what()[0] != '\0', "a refusal says why");
    return false;
  }
}

/// A folder for the whole process, in memory where the system has such a place.
inline const kd_test::folder& scratch() {
  static const kd_test::folder folder = [] {
    if (std::filesystem::is_directory("/dev/shm")) ::setenv("TMPDIR", "/dev/shm", 0);
    return kd_test::folder();
  }();
  return folder;
}

inline void put(const std::string& path, bytes content) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  require(file != nullptr, "the scratch folder can be written");
  std::fwrite(content.data(), 1, content.size(), file);
  std::fclose(file);
}

/// The path of a file with this content; the next call replaces it.
inline std::string file_with(bytes content) {
  const std::string path = scratch() / "input";
  put(path, content);
  return path;
}

}  // namespace kd_fuzz
