/// What a file of weights says beside its tensors: names under a prefix, batch-norm counters, the normalisation.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "kd/core/image_view.hpp"
#include "kd/io/safetensors.hpp"
#include "kd/nn/plan.hpp"

namespace kd::inline KD_ABI::train::detail {

inline std::vector<std::uint64_t> extents_of(const nn::parameter& p) {
  return {p.dims.begin(), p.dims.begin() + static_cast<std::ptrdiff_t>(p.rank)};
}

// ---- names

inline bool begins_with_any(std::string_view name, const std::vector<std::string>& prefixes) {
  for (const std::string& prefix : prefixes)
    if (name.starts_with(prefix)) return true;
  return false;
}

/// "fc." of "fc.weight": what skips a tensor and its siblings.
inline std::string module_of(std::string_view name) {
  const std::size_t dot = name.rfind('.');
  return std::string(dot == name.npos ? name : name.substr(0, dot + 1));
}

/// "optimizer." of "optimizer.0.fc.weight": the shortest prefix that skips a tensor and none of the network's own.
inline std::string foreign_prefix(std::string_view name, const std::set<std::string, std::less<>>& own) {
  for (std::size_t dot = name.find('.'); dot != name.npos; dot = name.find('.', dot + 1)) {
    const std::string_view prefix = name.substr(0, dot + 1);
    const auto first = own.lower_bound(prefix);
    if (first == own.end() || !first->starts_with(prefix)) return std::string(prefix);
  }
  return std::string(name);
}

/// The tensors of a file under the names that they have without a prefix; names that lack it stay as they are.
class stripped_names {
 public:
  /// Throws file_error where no name has the prefix, or two names become one.
  stripped_names(const io::safetensors_file& file, const std::string& prefix) {
    bool any = prefix.empty();
    for (const io::tensor_info& tensor : file.list()) {
      const bool has = tensor.name.starts_with(prefix);
      any = any || has;
      const auto [at, added] = tensors_.emplace(tensor.name.substr(has ? prefix.size() : 0), &tensor);
      if (!added)
        throw file_error(text(file.path(), ": \"", at->second->name, "\" and \"", tensor.name,
                              "\" have one name without the prefix \"", prefix, "\"; save one of them alone"));
    }
    if (!any)
      throw file_error(text(file.path(), ": no tensor's name begins with the prefix \"", prefix, "\" to be stripped",
                            file.list().empty() ? "" : ", the first is \"",
                            file.list().empty() ? "" : file.list()[0].name, file.list().empty() ? "" : "\"",
                            "; correct the prefix"));
  }

  const std::map<std::string, const io::tensor_info*, std::less<>>& all() const { return tensors_; }
  const io::tensor_info* find(std::string_view name) const {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : found->second;
  }

  /// What to do where the network's tensors of these names are not in the file.
  std::string advice(const std::vector<std::string>& wanted) const {
    const std::string prefix = prefix_of(wanted);
    if (prefix.empty())
      return text("the file's ", tensors_.size(), " tensors ", tensors_.empty() ? "" : "begin with \"",
                  tensors_.empty() ? "" : tensors_.begin()->first, tensors_.empty() ? "" : "\"",
                  ": name a checkpoint of this network");
    std::size_t count = 0;
    for (const auto& [name, tensor] : tensors_) count += name.starts_with(prefix) ? 1 : 0;
    return text(count == tensors_.size() ? text("all") : text(count, " of ", tensors_.size()), " names begin with \"",
                prefix, "\": load it with .strip_prefix = \"", prefix, "\", or --strip-prefix ", prefix);
  }

 private:
  /// The prefix under which all of these names are in the file ("module." of DataParallel); empty where there is none.
  std::string prefix_of(const std::vector<std::string>& wanted) const {
    for (const auto& [candidate, tensor] : tensors_) {
      if (!candidate.ends_with(wanted[0])) continue;
      const std::string prefix = candidate.substr(0, candidate.size() - wanted[0].size());
      if (prefix.ends_with('.') && std::all_of(wanted.begin(), wanted.end(),
                                               [&](const std::string& name) { return find(prefix + name) != nullptr; }))
        return prefix;
    }
    return {};
  }

  std::map<std::string, const io::tensor_info*, std::less<>> tensors_;
};

// ---- batch-norm counters

inline constexpr std::string_view variance_name = "running_var";

/// "layer1.0.bn1.num_batches_tracked" beside "layer1.0.bn1.running_var", nothing beside other tensors.
inline std::string counter_beside(std::string_view name) {
  if (!name.ends_with(variance_name)) return {};
  name.remove_suffix(variance_name.size());
  return text(name, "num_batches_tracked");
}

/// The value of a counter: one element of any dtype and rank, as PyTorch loads it. Nothing where it is no count, as
/// where half precision, which ends at 65504, has made an infinity of it: nothing but PyTorch ever reads it. Throws
/// file_error on more than one element, and on a U64 beyond I64.
inline std::optional<std::int64_t> counter_of(const io::safetensors_file& file, const io::tensor_info& tensor) {
  if (tensor.size() != 1)
    throw file_error(text(file.path(), ": tensor \"", tensor.name, "\": a counter has one element, found shape ",
                          io::text_of(tensor.shape), "; name a checkpoint of this network"));
  if (io::size_of_dtype(tensor.dtype) == 0) return {};
  double value = 0;
  if (tensor.dtype == "F64") {
    std::memcpy(&value, tensor.data.data(), sizeof value);
  } else if (tensor.dtype == "F32" || tensor.dtype == "F16" || tensor.dtype == "BF16") {
    float read = 0;
    file.read(tensor.name, tensor.shape, std::span<float>(&read, 1));
    value = static_cast<double>(read);
  } else {
    std::int64_t read = 0;
    file.read(tensor.name, tensor.shape, std::span<std::int64_t>(&read, 1));
    return read < 0 ? std::nullopt : std::optional(read);
  }
  if (!(value >= 0 && value < 0x1p63)) return {};
  return static_cast<std::int64_t>(value);
}

// ---- normalisation

/// The metadata entry {"mean":[...],"std":[...]}, one number for each channel that uses one.
inline constexpr std::string_view normalisation_key = "kd.normalisation";

inline std::string to_json(const normalisation& norm, std::size_t channels) {
  io::json out = io::json::object();
  for (std::size_t c = 0; c < normalisation::used(channels); ++c) {
    out["mean"].push_back(norm.mean[c]);
    out["std"].push_back(norm.std[c]);
  }
  return out.dump();
}

/// What the file says of its images; nothing where it was not written by kd.
inline std::optional<normalisation> normalisation_of(const io::safetensors_file& file, std::size_t channels) {
  const std::string* const entry = file.find_metadata(normalisation_key);
  if (entry == nullptr) return {};
  const std::string source = text(file.path(), ": metadata \"", normalisation_key, "\"");
  const io::json root = io::json::parse(*entry, source);
  normalisation norm{{0, 0, 0}, {1, 1, 1}};
  const auto read = [&](const char* name, float(&to)[3]) {
    const io::json* const list = root.find(name);
    if (list == nullptr || list->size() != normalisation::used(channels)) return false;
    for (std::size_t c = 0; c < list->size(); ++c) {
      if (!list->items()[c].is_number()) return false;
      to[c] = static_cast<float>(list->items()[c].as_number());
    }
    return true;
  };
  if (!read("mean", norm.mean) || !read("std", norm.std) || !is_usable(norm, channels))
    throw file_error(text(source, " must be {\"mean\":[...],\"std\":[...]} with ", normalisation::used(channels),
                          " finite numbers each, std positive, found ", *entry,
                          "; the file is damaged or of another network: save it again"));
  return norm;
}

/// Says once in a program that ImageNet's constants were taken, since neither file nor program knew better.
inline void say_imagenet(const std::string& path) {
  static std::atomic<bool> said = false;
  if (said.exchange(true)) return;
  std::fprintf(stderr,
               "kd: %s does not say how the pixels of its images were normalised: ImageNet's constants are taken; if "
               "they are not right, give the network others when it is made\n",
               path.c_str());
}

/// The normalisation that a network has after it has loaded the file. Throws file_error where the two differ.
template <class Network>
normalisation pixels_after(const io::safetensors_file& file, const Network& network) {
  const std::size_t channels = Network::plan::input.channels;
  const std::optional<normalisation> found = normalisation_of(file, channels);
  if (!network.pixels_given()) return found.value_or(imagenet_normalisation);
  if (found && *found != network.pixels())
    throw file_error(text(file.path(), ": its weights were trained on pixels normalised by ", text_of(*found, channels),
                          ", the network was given ", text_of(network.pixels(), channels),
                          "; give it the file's, or nothing to take them from the file"));
  return network.pixels();
}

}  // namespace kd::inline KD_ABI::train::detail
