/// Dropout on a GPU, Philox included, beside a device-to-device copy of the bytes that it moves.
#include "kd/cuda/dropout.hpp"

#include "cuda/rotated_sets.hpp"

namespace {

using namespace kd_bench;

template <class T>
void add(const kd::shape& shape, std::size_t batch) {
  const std::size_t n = batch * shape.size();
  const auto bytes = static_cast<double>(2 * n * sizeof(T));
  const std::string name = kd::text("dropout/cuda/", type_name<T>, "/", batch, "x", kd::text_of(shape));
  add_benchmark(name, bytes, [shape, batch, n, bytes](benchmark::State& state) {
    const kd::cuda::stream s;
    std::vector<kd::cuda::buffer<T>> x, y;
    for (std::size_t i = 0; i < sets_of(bytes); ++i) {
      x.push_back(filled<T>(s, n, 1));
      y.emplace_back(n);
    }
    // As in a recorded step: the number of the step is read from the GPU's memory.
    const auto step = zeros<std::uint32_t>(s, 1);
    time_sets(state, s, x.size(), bytes, [&](std::size_t i) {
      kd::cuda::dropout<T>(s, shape, batch, 0.1f, 1, 0, step.data(), 3, x[i].data(), y[i].data());
    });
  });
}

// The hidden rows of SimpleNN and LightNN, and large rows; then images of the kernel's other two ways: pixels in fours,
// and any other number of pixels.
const bool added = [] {
  for (const std::size_t features : {64u, 256u, 4096u}) add<float>(kd::row_shape(features), 128);
  add<float>(kd::row_shape(4096), 4096);
  for (const kd::shape& shape :
       {kd::image_shape(16, 16, 16), kd::image_shape(64, 32, 32), kd::image_shape(512, 7, 7)}) {
    add<float>(shape, 128);
    add<bfloat16>(shape, 128);
  }
  return true;
}();

}  // namespace
