/// Deterministic sums on a GPU beside a device-to-device copy that reads and writes as many bytes as the sum reads:
/// half of them are the copy's reads, so that a sum can take less time than its copy.
#include "kd/cuda/reduce.hpp"

#include "cuda/rotated_sets.hpp"

namespace {

using namespace kd_bench;

void add_sum(std::size_t n) {
  const auto bytes = static_cast<double>(n * sizeof(float));
  add_benchmark(kd::text("sum/cuda/", n), bytes, [n, bytes](benchmark::State& state) {
    const kd::cuda::stream s;
    std::vector<kd::cuda::buffer<float>> x;
    for (std::size_t i = 0; i < sets_of(bytes); ++i) x.push_back(filled<float>(s, n, 1));
    kd::cuda::buffer<double> out(1), scratch(kd::cuda::sum_scratch(n));
    time_sets(state, s, x.size(), bytes,
              [&](std::size_t i) { kd::cuda::sum(s, n, x[i].data(), out.data(), scratch.data()); });
  });
}

template <class T>
void add_columns(std::size_t rows, std::size_t columns) {
  const auto bytes = static_cast<double>(rows * columns * sizeof(T));
  const std::string name = kd::text("column_sums/cuda/", type_name<T>, "/", rows, "x", columns);
  add_benchmark(name, bytes, [rows, columns, bytes](benchmark::State& state) {
    const kd::cuda::stream s;
    std::vector<kd::cuda::buffer<T>> x;
    for (std::size_t i = 0; i < sets_of(bytes); ++i) x.push_back(filled<T>(s, rows * columns, 1));
    kd::cuda::buffer<float> out(columns), scratch(kd::cuda::column_sums_scratch(rows, columns));
    time_sets(state, s, x.size(), bytes, [&](std::size_t i) {
      kd::cuda::column_sums<T>(s, rows, columns, x[i].data(), out.data(), scratch.data());
    });
  });
}

// Sums of the weights of LightNN and ResNet18. Gradients of biases at batch 128: LightNN's two linear layers and two
// convolutions, a stage of ResNet18, and a large linear layer.
const bool added = [] {
  add_sum(267'738);
  add_sum(11'181'642);
  add_columns<float>(128, 10);
  add_columns<float>(128, 256);
  for (const std::size_t pixels : {256u, 1024u}) {
    add_columns<float>(128 * pixels, 16);
    add_columns<bfloat16>(128 * pixels, 16);
  }
  add_columns<float>(128 * 256, 64);
  add_columns<bfloat16>(128 * 256, 64);
  add_columns<float>(4096, 4096);
  return true;
}();

}  // namespace
