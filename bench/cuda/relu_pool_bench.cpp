/// Bias, relu and 2x2 max pool in one pass on a GPU, beside the two passes and beside a device-to-device copy of the
/// bytes that the one pass moves: input, output and winners once. All rates count those bytes.
#include "kd/cuda/relu_pool.hpp"

#include "cuda/rotated_sets.hpp"
#include "kd/cuda/activation.hpp"

namespace {

using namespace kd_bench;

constexpr std::size_t batch = 128;

template <class T>
struct layers {
  kd::shape shape;
  kd::pool2d_geometry pool;
  kd::cuda::stream stream;
  struct set {
    kd::cuda::buffer<T> x, activated, y;
    kd::cuda::buffer<std::uint8_t> winners;
  };
  std::vector<set> sets;
  kd::cuda::buffer<float> bias;

  layers(const kd::shape& s, double bytes)
      : shape(s), pool(kd::cuda::halved(s)), bias(filled<float>(stream, s.channels, 2)) {
    const std::size_t in = batch * s.size(), out = batch * pool.out().size();
    for (std::size_t i = 0; i < sets_of(bytes); ++i)
      sets.push_back({filled<T>(stream, in, 1), kd::cuda::buffer<T>(in), kd::cuda::buffer<T>(out),
                      kd::cuda::buffer<std::uint8_t>(out)});
  }
  void fused(std::size_t i) {
    kd::cuda::bias_relu_pool<T>(stream, shape, batch, sets[i].x.data(), bias.data(), sets[i].y.data(),
                                sets[i].winners.data());
  }
  void two_passes(std::size_t i) {
    kd::cuda::bias_relu<T>(stream, batch * shape.pixels(), shape.channels, sets[i].x.data(), bias.data(), true,
                           sets[i].activated.data());
    kd::cuda::max_pool2d_forward<T>(stream, pool, batch, sets[i].activated.data(), sets[i].y.data(),
                                    sets[i].winners.data());
  }
};

template <class T>
void add(const kd::shape& s) {
  const kd::shape out = kd::cuda::halved(s).out();
  const auto bytes = static_cast<double>(batch * (s.size() * sizeof(T) + out.size() * (sizeof(T) + 1)));
  const auto add_one = [&](const char* operation, void (layers<T>::*work)(std::size_t)) {
    const std::string name = kd::text(operation, "/cuda/", type_name<T>, "/", kd::text_of(s));
    add_benchmark(name, bytes, [=](benchmark::State& state) {
      layers<T> l(s, bytes);
      time_sets(state, l.stream, l.sets.size(), bytes, [&](std::size_t i) { (l.*work)(i); });
    });
  };
  add_one("bias_relu_pool", &layers<T>::fused);
  add_one("bias_relu_then_max_pool2d", &layers<T>::two_passes);
}

// Behind the convolutions of SimpleNN and LightNN, and behind a wide one, where cuDNN convolves and this follows.
const bool added = [] {
  for (const kd::shape& s : {kd::image_shape(8, 32, 32), kd::image_shape(16, 32, 32), kd::image_shape(16, 16, 16),
                             kd::image_shape(64, 32, 32)}) {
    add<float>(s);
    add<bfloat16>(s);
  }
  return true;
}();

}  // namespace
