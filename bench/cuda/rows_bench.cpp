/// Gathering rows of a table, and labels, on a GPU beside a device-to-device copy of the bytes that it moves: 8 for
/// each float and 4 for each index, 12 for each label.
#include "kd/cuda/rows.hpp"

#include "cuda/rotated_sets.hpp"

namespace {

using namespace kd_bench;

/// Every sample once, in batches whose neighbours lie far apart in memory.
kd::cuda::buffer<std::uint32_t> scattered(const kd::cuda::stream& s, std::size_t batches, std::size_t count) {
  std::vector<std::uint32_t> host(batches * count);
  for (std::size_t i = 0; i < host.size(); ++i) host[i] = static_cast<std::uint32_t>(i % batches * count + i / batches);
  kd::cuda::buffer<std::uint32_t> indices(host.size());
  kd::cuda::upload(s, host.data(), host.size(), indices.data());
  return indices;
}

void add_rows(std::size_t count, std::size_t width) {
  const auto bytes = static_cast<double>(count * (width * 8 + 4));
  add_benchmark(kd::text("gather_rows/cuda/", count, "x", width), bytes, [=](benchmark::State& state) {
    const kd::cuda::stream s;
    const std::size_t sets = sets_of(bytes);
    const auto indices = scattered(s, sets, count);
    const auto table = filled<float>(s, sets * count * width, 1);
    kd::cuda::buffer<float> out(sets * count * width);
    time_sets(state, s, sets, bytes, [&](std::size_t i) {
      kd::cuda::gather_rows(s, table.data(), width, indices.data() + i * count, count, out.data() + i * count * width);
    });
  });
}

void add_labels(std::size_t count) {
  const auto bytes = static_cast<double>(count * 12);
  add_benchmark(kd::text("gather_labels/cuda/", count), bytes, [=](benchmark::State& state) {
    const kd::cuda::stream s;
    const std::size_t sets = sets_of(bytes);
    const auto indices = scattered(s, sets, count);
    const auto labels = zeros<std::int32_t>(s, sets * count);
    kd::cuda::buffer<std::int32_t> out(sets * count);
    time_sets(state, s, sets, bytes, [&](std::size_t i) {
      kd::cuda::gather_labels(s, labels.data(), indices.data() + i * count, count, out.data() + i * count);
    });
  });
}

// Cached logits of a batch: CIFAR-10, CIFAR-100, ImageNet, a vocabulary; the last width does not allow 16-byte
// accesses.
const bool added = [] {
  for (const std::size_t width : {10u, 100u, 1000u, 32000u, 1001u}) add_rows(128, width);
  add_rows(4096, 1000);
  add_labels(128);
  add_labels(65536);
  return true;
}();

}  // namespace
