/// Files of other formats that people give where safetensors is expected, told by their first bytes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/io/json.hpp"

namespace kd::inline KD_ABI::io {

/// What a file is, and how to get a safetensors file from it; both empty where it is not known.
struct foreign_format {
  std::string name, remedy;
};

/// So many first bytes of a file are enough for recognise().
inline constexpr std::size_t recognised_bytes = 512;

/// What a file that is not valid safetensors is, of these first bytes.
foreign_format recognise(std::string_view path, std::string_view first);

namespace detail {

/// Whether a damaged file was safetensors: a header below 4 GiB, and its beginning.
constexpr bool begins_as_safetensors(std::string_view first) {
  return first.size() >= 8 && first.substr(4, 4) == std::string_view("\0\0\0\0", 4) &&
         (first.size() == 8 || first[8] == '{');
}

/// Whether a zip archive begins with an array, as numpy.savez makes it: the name of the first member ends in ".npy".
constexpr bool is_npz(std::string_view zip) {
  if (zip.size() < 30) return false;
  const std::size_t length =
      static_cast<unsigned char>(zip[26]) + 256 * std::size_t{static_cast<unsigned char>(zip[27])};
  return zip.substr(30, length).ends_with(".npy");
}

/// "runs/light.pth" to "runs/light.safetensors"; another name than the file's own in any case.
inline std::string converted(std::string_view path) {
  const std::size_t name = path.rfind('/') + 1, dot = path.rfind('.');
  const std::string_view stem = path.substr(0, dot == path.npos || dot <= name ? path.size() : dot);
  const std::string out = text(stem, ".safetensors");
  return out == path ? text(stem, ".converted.safetensors") : out;
}

/// A text as Python's literal.
inline std::string python_text(std::string_view s) { return json(s).dump(); }

inline std::string from_torch(std::string_view path) {
  return text("convert it in Python:\n  import torch, safetensors.torch\n  d = torch.load(", python_text(path),
              ", map_location=\"cpu\", weights_only=True); d = d.get(\"state_dict\", d.get(\"model\", d))\n"
              "  safetensors.torch.save_file({k: v.contiguous().clone() for k, v in d.items()}, ",
              python_text(converted(path)), ")");
}
inline std::string from_numpy(std::string_view path, std::string_view arrays) {
  return text("convert it in Python:\n  import numpy as np, safetensors.numpy\n  d = np.load(", python_text(path),
              ")\n  safetensors.numpy.save_file(", arrays, ", ", python_text(converted(path)), ")");
}

}  // namespace detail

inline foreign_format recognise(std::string_view path, std::string_view first) {
  if (detail::begins_as_safetensors(first)) return {};
  const auto begins = [&](std::string_view magic) { return first.starts_with(magic); };
  const std::string unpack = "unpack it, and give the safetensors file that is in it";
  if (begins("PK\x03\x04")) {
    if (detail::is_npz(first))
      return {"an .npz archive of NumPy's",
              detail::from_numpy(path, "{k: np.ascontiguousarray(d[k]) for k in d.files}")};
    return {"a zip archive, as torch.save writes", detail::from_torch(path)};
  }
  // Protocols 2 to 5.
  if (first.size() >= 3 && first[0] == '\x80' && first[1] >= 2 && first[1] <= 5 && first[2] != 0)
    return {"a Python pickle, as torch.save wrote before PyTorch 1.6", detail::from_torch(path)};
  if (begins("\x93NUMPY"))
    return {"an .npy array of NumPy's", detail::from_numpy(path, "{\"logits\": np.ascontiguousarray(d)}")};
  if (begins("\x1f\x8b\x08")) return {"a file compressed by gzip", unpack};
  if (first.size() >= 262 && first.substr(257, 5) == "ustar") return {"a tar archive", unpack};
  if (begins("\x89HDF\r\n\x1a\n"))
    return {"an HDF5 file, as Keras writes",
            "write its arrays with safetensors.numpy.save_file, under PyTorch's names and in PyTorch's order of "
            "elements"};
  if (begins("GGUF")) return {"a GGUF file", "give the safetensors file that it was made from"};
  if (begins("version https://git-lfs"))
    return {"the pointer that Git LFS leaves in a file's place", "fetch the file itself: git lfs pull"};
  const std::string_view start = first.substr(0, std::min<std::size_t>(first.size(), 8));
  if (begins("{") && start.find('\0') == start.npos) return {"JSON text", "give the safetensors file itself"};
  if (begins("<") && start.find('\0') == start.npos)
    return {"a web page", "the download went wrong: fetch the file itself"};
  return {};
}

}  // namespace kd::inline KD_ABI::io
