/// Weights of a network as a safetensors file with PyTorch's names, shapes and order of elements.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kd/io/safetensors.hpp"
#include "kd/nn/network.hpp"
#include "kd/train/detail/weights_file.hpp"

namespace kd::inline KD_ABI::train {

/// How a file's tensors are matched with a network's. Loading a file with another classifier, to go on with the rest:
/// load_weights(network, path, {.skip = {"fc."}}).
struct load_options {
  /// Taken from the front of the file's names: "module." after DataParallel, "_orig_mod." after torch.compile.
  std::string strip_prefix = {};
  /// Tensors that begin with one of these (after strip_prefix) are not loaded, whatever their shape: the network's keep
  /// the values that they have.
  std::vector<std::string> skip = {};
  /// As in PyTorch: whether every tensor must be on both sides. Shapes must agree in any case.
  bool strict = true;
};

/// What a load left out.
struct load_result {
  std::vector<std::string> skipped;     // the network's tensors that load_options::skip names
  std::vector<std::string> missing;     // the network's tensors that the file lacks; empty where strict
  std::vector<std::string> unexpected;  // the file's tensors that the network lacks; empty where strict
};

/// Adds every tensor of a network to a file, running statistics and num_batches_tracked included, and how its pixels
/// are normalised.
template <class Network>
void add_weights(io::safetensors_writer& file, const Network& network) {
  file.metadata(detail::normalisation_key, detail::to_json(network.pixels(), Network::plan::input.channels));
  for (const nn::tensor_info& info : Network::plan::tensors) {
    file.add(std::string(info.name.view()), detail::extents_of(info.spec), network.read(info));
    const std::string counter = detail::counter_beside(info.name.view());
    if (!counter.empty()) file.add(counter, {}, std::vector<std::int64_t>{network.batches_tracked});
  }
}

namespace detail {

/// The tensor in the network's type. Throws file_error on another shape, a value that is not finite, or a variance
/// below zero.
inline std::vector<float> weights_of(const io::safetensors_file& file, const io::tensor_info& tensor,
                                     const nn::tensor_info& info) {
  const std::vector<std::uint64_t> shape = extents_of(info.spec);
  const std::string& name = tensor.name;
  if (tensor.shape != shape)
    throw file_error(text(file.path(), ": tensor \"", name, "\": expected shape ", io::text_of(shape), ", found ",
                          io::text_of(tensor.shape),
                          "; name a checkpoint of this network, or keep the network's own with ", ".skip = {\"",
                          module_of(info.name.view()), "\"}"));
  std::vector<float> values(info.spec.size());
  file.read(name, shape, std::span<float>(values));
  const bool variance = name.ends_with(variance_name);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i]))
      throw file_error(text(file.path(), ": tensor \"", name, "\": element ", i, " must be finite, found ", values[i],
                            "; the file was saved from a run that had diverged: use an earlier one"));
    if (variance && values[i] < 0)
      throw file_error(text(file.path(), ": tensor \"", name, "\": element ", i,
                            ", a variance, must be at least 0, found ", values[i],
                            "; the file is damaged or was changed by hand: save it again"));
  }
  return values;
}

/// The network's tensors that are to be loaded. Throws argument_error where a prefix to be skipped names nothing, or
/// everything.
template <class Network>
std::vector<std::string> wanted_names(const stripped_names& names, const std::vector<std::string>& skip) {
  std::vector<std::string> own, wanted;
  for (const nn::tensor_info& info : Network::plan::tensors) own.emplace_back(info.name.view());
  for (const std::string& name : own)
    if (!begins_with_any(name, skip)) wanted.push_back(name);
  for (const std::string& prefix : skip)
    if (std::none_of(own.begin(), own.end(), [&](const std::string& n) { return n.starts_with(prefix); }) &&
        std::none_of(names.all().begin(), names.all().end(),
                     [&](const auto& n) { return n.first.starts_with(prefix); }))
      reject_argument("kd::train::load_weights", "skip must name tensors of the network or of the file", prefix,
                      "correct the prefix, or leave it out");
  if (wanted.empty() && !own.empty())
    reject_argument("kd::train::load_weights", "skip must leave a tensor to load", skip[0], "name fewer");
  return wanted;
}

}  // namespace detail

/// Loads the tensors of an open file, and how pixels are normalised: where the file does not say it, that is what the
/// network was given, else ImageNet's. Throws file_error that names the tensor, argument_error where `skip` names
/// nothing, or everything; nothing is changed then.
template <class Network>
load_result read_weights(const io::safetensors_file& file, Network& network, const load_options& options = {}) {
  const detail::stripped_names names(file, options.strip_prefix);
  const std::vector<std::string> wanted = detail::wanted_names<Network>(names, options.skip);
  const normalisation pixels = detail::pixels_after(file, network);
  std::int64_t batches = network.batches_tracked;
  load_result result;
  std::set<std::string, std::less<>> own;
  std::vector<std::pair<const nn::tensor_info*, std::vector<float>>> values;
  for (const nn::tensor_info& info : Network::plan::tensors) {
    const std::string name(info.name.view()), counter = detail::counter_beside(name);
    own.insert(name);
    if (!counter.empty()) own.insert(counter);
    const io::tensor_info* const found = names.find(name);
    if (detail::begins_with_any(name, options.skip)) {
      result.skipped.push_back(name);
    } else if (found != nullptr) {
      values.emplace_back(&info, detail::weights_of(file, *found, info));
      // Files that were not written by PyTorch may lack the counter.
      if (const io::tensor_info* const count = counter.empty() ? nullptr : names.find(counter))
        batches = detail::counter_of(file, *count).value_or(batches);
    } else {
      if (options.strict)
        throw file_error(text(file.path(), ": tensor \"", name, "\" of shape ",
                              io::text_of(detail::extents_of(info.spec)), " is missing; ", names.advice(wanted)));
      result.missing.push_back(name);
    }
  }
  if (values.empty() && !wanted.empty())
    throw file_error(text(file.path(), ": none of the network's ", wanted.size(),
                          " tensors is in the file, the first is \"", wanted[0], "\"; ", names.advice(wanted)));
  for (const auto& [name, tensor] : names.all()) {
    if (own.contains(name) || detail::begins_with_any(name, options.skip)) continue;
    if (options.strict)
      throw file_error(text(file.path(), ": tensor \"", tensor->name, "\" ", io::text_of(tensor->shape),
                            " does not belong to this network of ", Network::plan::tensors.size(),
                            " tensors; give the network that the file was saved from, or load it with .skip = {\"",
                            detail::foreign_prefix(name, own), "\"}"));
    result.unexpected.push_back(tensor->name);
  }
  for (const auto& [info, canonical] : values) network.write(*info, canonical.data());
  network.batches_tracked = batches;
  network.set_pixels(pixels);
  if (!network.pixels_given() && file.find_metadata(detail::normalisation_key) == nullptr)
    detail::say_imagenet(file.path());
  return result;
}

/// Writes the weights to a file, atomically: PyTorch loads it with safetensors.torch.load_file.
template <class Network>
void save_weights(const Network& network, const std::string& path) {
  io::safetensors_writer file;
  file.metadata("format", "pt");
  add_weights(file, network);
  file.write(path);
}

/// Loads weights that save_weights or PyTorch wrote; throws as read_weights, and the network is then as it was. Says
/// what was left out, which is nothing unless the options allow it.
template <class Network>
load_result load_weights(Network& network, const std::string& path, const load_options& options = {}) {
  return read_weights(io::safetensors_file::open(path), network, options);
}

}  // namespace kd::inline KD_ABI::train
