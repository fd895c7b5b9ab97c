/// A temporary folder for one test case.
#pragma once

#include <stdlib.h>

#include <cstddef>
#include <filesystem>
#include <iterator>
#include <stdexcept>
#include <string>

namespace kd_test {

/// A folder of its own, removed with what is in it.
class folder {
 public:
  folder() {
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("cannot make " + path_);
  }
  folder(const folder&) = delete;
  folder& operator=(const folder&) = delete;
  ~folder() { std::filesystem::remove_all(path_); }

  std::filesystem::path path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  std::ptrdiff_t entries() const {
    return std::distance(std::filesystem::directory_iterator(path_), std::filesystem::directory_iterator());
  }

 private:
  std::string path_ = std::filesystem::temp_directory_path().string() + "/kd-test-XXXXXX";
};

}  // namespace kd_test
