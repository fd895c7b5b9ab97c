/// The data set that a program is asked for: a CIFAR folder, or the synthetic one where none is named.
#pragma once

#include <cstdlib>
#include <string>

#include "kd/data/cifar.hpp"
#include "kd/data/download.hpp"
#include "kd/data/synthetic.hpp"

namespace kd::inline KD_ABI::data {

/// Where data comes from; the folder falls back to the environment variable KD_DATA.
struct source {
  std::string folder = {};
  bool download = false;  // fetch CIFAR-10 into the folder first, where it is not there yet
  std::string url = {};   // of the archive; empty: the official one
  synthetic_options synthetic = {};
};

/// Loads CIFAR-10 or CIFAR-100 from the folder, or draws the synthetic set where neither folder nor KD_DATA is given.
/// A folder that holds CIFAR-10 is never fetched again, nor anything in it replaced.
inline dataset open(source from) {
  if (from.folder.empty())
    if (const char* folder = std::getenv("KD_DATA")) from.folder = folder;
  if (from.folder.empty()) {
    if (from.download)
      throw argument_error("kd::data::open: --download needs a folder to put the data in; give it with --data DIR");
    return synthetic_shapes(from.synthetic);
  }
  if (from.download && !holds_cifar10(from.folder)) {
    archive official = official_archive(cifar_set::cifar10);
    if (!from.url.empty()) official.url = from.url;
    download_cifar(cifar_set::cifar10, from.folder, official);
  }
  return load_cifar(from.folder);
}

}  // namespace kd::inline KD_ABI::data
