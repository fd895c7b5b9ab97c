/// Elementwise layers on a GPU beside a device-to-device copy of the bytes that they move.
#include "kd/cuda/activation.hpp"

#include "cuda/rotated_sets.hpp"

namespace {

using namespace kd_bench;

constexpr std::size_t batch = 128;

/// Three arrays of one image layer, and three of its rows.
template <class T>
struct arrays {
  kd::cuda::buffer<T> x, y, z;
  kd::cuda::buffer<float> row;

  arrays(const kd::cuda::stream& s, std::size_t n)
      : x(filled<T>(s, n, 1)), y(filled<T>(s, n, 2)), z(filled<T>(s, n, 3)), row(filled<float>(s, n, 4)) {}
};

/// @param each bytes of one element: of all inputs and outputs
/// @param work called with stream, arrays and a bias for each channel
template <class T, class Work>
void add_one(const char* operation, const kd::shape& shape, std::size_t each, const Work& work) {
  const std::size_t n = batch * shape.size();
  const auto bytes = static_cast<double>(n * each);
  const std::string name = kd::text(operation, "/cuda/", type_name<T>, "/", kd::text_of(shape));
  add_benchmark(name, bytes, [n, shape, bytes, work](benchmark::State& state) {
    const kd::cuda::stream s;
    const auto bias = filled<float>(s, shape.channels, 5);
    std::vector<arrays<T>> sets;
    for (std::size_t i = 0; i < sets_of(bytes); ++i) sets.emplace_back(s, n);
    time_sets(state, s, sets.size(), bytes, [&](std::size_t i) { work(s, sets[i], bias.data()); });
  });
}

template <class T>
void add_layers(const kd::shape& shape) {
  const std::size_t n = batch * shape.size(), pixels = batch * shape.pixels();
  using kd::cuda::stream;
  add_one<T>("relu_forward", shape, 2 * sizeof(T), [n](const stream& s, arrays<T>& a, const float*) {
    kd::cuda::relu_forward<T>(s, n, a.x.data(), a.y.data());
  });
  add_one<T>("relu_backward", shape, 3 * sizeof(T), [n](const stream& s, arrays<T>& a, const float*) {
    kd::cuda::relu_backward<T>(s, n, a.x.data(), a.y.data(), a.z.data());
  });
  add_one<T>("add", shape, 3 * sizeof(T), [n](const stream& s, arrays<T>& a, const float*) {
    kd::cuda::add<T>(s, n, a.x.data(), a.y.data(), a.z.data());
  });
  add_one<T>("bias_relu", shape, 2 * sizeof(T), [shape, pixels](const stream& s, arrays<T>& a, const float* bias) {
    kd::cuda::bias_relu<T>(s, pixels, shape.channels, a.x.data(), bias, true, a.y.data());
  });
  add_one<T>("flatten_forward", shape, sizeof(T) + 4, [shape](const stream& s, arrays<T>& a, const float*) {
    kd::cuda::flatten_forward<T>(s, shape, batch, a.x.data(), a.row.data());
  });
  add_one<T>("flatten_backward", shape, sizeof(T) + 4, [shape](const stream& s, arrays<T>& a, const float*) {
    kd::cuda::flatten_backward<T>(s, shape, batch, a.row.data(), a.x.data());
  });
}

// LightNN's last image, a stage of ResNet18, and one with an odd number of pixels.
const bool added = [] {
  for (const kd::shape& shape : {kd::image_shape(16, 8, 8), kd::image_shape(64, 32, 32), kd::image_shape(512, 7, 7)}) {
    add_layers<float>(shape);
    add_layers<bfloat16>(shape);
  }
  return true;
}();

}  // namespace
