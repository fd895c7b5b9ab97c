/// Weights of a network as a safetensors file with PyTorch's names, shapes and order of elements.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "kd/io/safetensors.hpp"
#include "kd/nn/network.hpp"

namespace kd::inline KD_ABI::train {

namespace detail {

inline std::vector<std::uint64_t> extents_of(const nn::parameter& p) {
  return {p.dims.begin(), p.dims.begin() + static_cast<std::ptrdiff_t>(p.rank)};
}

/// "layer1.0.bn1.num_batches_tracked" behind "layer1.0.bn1.running_var", nothing behind other tensors.
inline std::string counter_behind(std::string_view name) {
  constexpr std::string_view last_statistic = "running_var";
  if (!name.ends_with(last_statistic)) return {};
  name.remove_suffix(last_statistic.size());
  return text(name, "num_batches_tracked");
}

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

/// Says once in a program that a file does not know its normalisation.
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
  if (!network.pixels_given()) {
    if (!found) say_imagenet(file.path());
    return found.value_or(imagenet_normalisation);
  }
  if (found && *found != network.pixels())
    throw file_error(text(file.path(), ": its weights were trained on pixels normalised by ", text_of(*found, channels),
                          ", the network was given ", text_of(network.pixels(), channels),
                          "; give it the file's, or nothing to take them from the file"));
  return network.pixels();
}

}  // namespace detail

/// Adds every tensor of a network to a file, running statistics and num_batches_tracked included, and how its pixels
/// are normalised.
template <class Network>
void add_weights(io::safetensors_writer& file, const Network& network) {
  file.metadata(detail::normalisation_key, detail::to_json(network.pixels(), Network::plan::input.channels));
  for (const nn::tensor_info& info : Network::plan::tensors) {
    file.add(std::string(info.name.view()), detail::extents_of(info.spec), network.read(info));
    const std::string counter = detail::counter_behind(info.name.view());
    if (!counter.empty()) file.add(counter, {}, std::vector<std::int64_t>{network.batches_tracked});
  }
}

/// Loads every tensor from an open file, and how pixels are normalised: where the file does not say it, that is what
/// the network was given, else ImageNet's. Nothing is changed unless all tensors are there with the right shape, and
/// the file agrees with the normalisation that the network was given; throws file_error that names the tensor.
/// `ignored` lists the prefixes of tensors that do not belong to the network.
template <class Network>
void read_weights(const io::safetensors_file& file, Network& network, const std::vector<std::string>& ignored = {}) {
  std::set<std::string, std::less<>> expected;
  std::vector<std::vector<float>> values;
  std::int64_t batches = network.batches_tracked;
  const normalisation pixels = detail::pixels_after(file, network);
  for (const nn::tensor_info& info : Network::plan::tensors) {
    const std::string name(info.name.view());
    values.emplace_back(info.spec.size());
    file.read(name, detail::extents_of(info.spec), std::span<float>(values.back()));
    for (std::size_t i = 0; i < values.back().size(); ++i)
      if (!std::isfinite(values.back()[i]))
        throw file_error(text(file.path(), ": tensor \"", name, "\": element ", i, " must be finite, found ",
                              values.back()[i],
                              "; the file was saved from a run that had diverged: use an earlier one"));
    expected.insert(name);
    const std::string counter = detail::counter_behind(name);
    if (counter.empty()) continue;
    expected.insert(counter);
    // Files that were not written by PyTorch may lack the counter, which nothing but PyTorch reads.
    if (file.find(counter) != nullptr) file.read(counter, {}, std::span<std::int64_t>(&batches, 1));
  }
  for (const io::tensor_info& tensor : file.list()) {
    bool known = expected.contains(tensor.name);
    for (const std::string& prefix : ignored) known = known || tensor.name.starts_with(prefix);
    if (!known)
      throw file_error(text(file.path(), ": tensor \"", tensor.name, "\" ", io::text_of(tensor.shape),
                            " does not belong to this network of ", Network::plan::tensors.size(),
                            " tensors; give the network that the file was saved from"));
  }
  for (std::size_t i = 0; i < values.size(); ++i) network.write(Network::plan::tensors[i], values[i].data());
  network.batches_tracked = batches;
  network.set_pixels(pixels);
}

/// Writes the weights to a file, atomically: PyTorch loads it with safetensors.torch.load_file.
template <class Network>
void save_weights(const Network& network, const std::string& path) {
  io::safetensors_writer file;
  file.metadata("format", "pt");
  add_weights(file, network);
  file.write(path);
}

/// Loads weights that save_weights or PyTorch wrote; throws file_error, and the network is then as it was.
template <class Network>
void load_weights(Network& network, const std::string& path) {
  read_weights(io::safetensors_file::open(path), network);
}

}  // namespace kd::inline KD_ABI::train
