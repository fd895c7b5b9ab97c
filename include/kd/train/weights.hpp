/// Weights of a network as a safetensors file with PyTorch's names, shapes and order of elements.
#pragma once

#include <cmath>
#include <cstdint>
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

}  // namespace detail

/// Adds every tensor of a network to a file, running statistics and num_batches_tracked included.
template <class Network>
void add_weights(io::safetensors_writer& file, const Network& network) {
  for (const nn::tensor_info& info : Network::plan::tensors) {
    file.add(std::string(info.name.view()), detail::extents_of(info.spec), network.read(info));
    const std::string counter = detail::counter_behind(info.name.view());
    if (!counter.empty()) file.add(counter, {}, std::vector<std::int64_t>{network.batches_tracked});
  }
}

/// Loads every tensor from an open file. Nothing is changed unless all are there with the right shape; throws
/// file_error that names the tensor. `ignored` lists the prefixes of tensors that do not belong to the network.
template <class Network>
void read_weights(const io::safetensors_file& file, Network& network, const std::vector<std::string>& ignored = {}) {
  std::set<std::string, std::less<>> expected;
  std::vector<std::vector<float>> values;
  std::int64_t batches = network.batches_tracked;
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
