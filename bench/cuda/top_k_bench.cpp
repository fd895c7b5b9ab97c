/// Counting the rows whose label is the first, or among the first five, on a GPU beside a device-to-device copy that
/// reads and writes as many bytes as the counting reads.
#include "kd/cuda/top_k.hpp"

#include "cuda/rotated_sets.hpp"

namespace {

using namespace kd_bench;

void add(std::size_t rows, std::size_t classes) {
  const auto bytes = static_cast<double>(rows * (classes * sizeof(float) + sizeof(std::int32_t)));
  add_benchmark(kd::text("count_top_k/cuda/", rows, "x", classes), bytes, [=](benchmark::State& state) {
    const kd::cuda::stream s;
    std::vector<kd::cuda::buffer<float>> logits;
    for (std::size_t i = 0; i < sets_of(bytes); ++i) logits.push_back(filled<float>(s, rows * classes, 1));
    std::vector<std::int32_t> host;
    for (std::size_t row = 0; row < rows; ++row) host.push_back(static_cast<std::int32_t>(row * 7919 % classes));
    kd::cuda::buffer<std::int32_t> labels(rows);
    kd::cuda::upload(s, host.data(), rows, labels.data());
    const auto five = std::min<std::size_t>(5, classes);
    auto counts = zeros<std::uint64_t>(s, 2);
    time_sets(state, s, logits.size(), bytes, [&](std::size_t i) {
      kd::cuda::count_top_k(s, rows, classes, logits[i].data(), labels.data(), five, counts.data());
    });
  });
}

// A batch and the test sets of CIFAR-10 and CIFAR-100; ImageNet and a vocabulary.
const bool added = [] {
  add(128, 10);
  add(10'000, 10);
  add(10'000, 100);
  add(50'000, 1000);
  add(1024, 32'000);
  return true;
}();

}  // namespace
