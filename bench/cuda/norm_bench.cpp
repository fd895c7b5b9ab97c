/// Batch norm of ResNet18's layers on a GPU, fused with relu and the residual sum, beside the unfused chain and beside
/// a device-to-device copy. bytes_per_second counts each input and output of the operation once: passes that read an
/// array a second time, from L2 or not, cannot reach the copy's figure.
#include "kd/cuda/norm.hpp"

#include <memory>

#include "cuda/rotated_sets.hpp"
#include "kd/cuda/activation.hpp"

namespace {

using namespace kd_bench;

constexpr std::size_t batch = 128;

// The arrays of one layer; what is per channel is shared by all sets.
template <class T>
struct layer {
  kd::cuda::buffer<T> x, residual, y, dy, d_residual, dx;
  layer(const kd::cuda::stream& s, std::size_t n)
      : x(filled<T>(s, n, 1)), residual(filled<T>(s, n, 2)), y(n), dy(filled<T>(s, n, 3)), d_residual(n), dx(n) {}
};

template <class T>
struct layers {
  kd::shape shape;
  kd::cuda::stream stream;
  std::vector<layer<T>> sets;
  kd::cuda::buffer<float> gamma, beta, mean, inv_std, running_mean, running_var, d_gamma, d_beta, scratch;

  explicit layers(const kd::shape& s)
      : shape(s),
        gamma(filled<float>(stream, s.channels, 4)),
        beta(filled<float>(stream, s.channels, 5)),
        mean(s.channels),
        inv_std(s.channels),
        running_mean(filled<float>(stream, s.channels, 6, true)),
        running_var(filled<float>(stream, s.channels, 7, true)),
        d_gamma(s.channels),
        d_beta(s.channels),
        scratch(kd::cuda::batch_norm2d_scratch(s, batch)) {
    const std::size_t n = batch * s.size(), count = sets_of(static_cast<double>(6 * n * sizeof(T)));
    for (std::size_t i = 0; i < count; ++i) sets.emplace_back(stream, n);
  }
  void forward(std::size_t i, const T* residual, bool relu) {
    kd::cuda::batch_norm2d_forward_train<T>(stream, shape, batch, sets[i].x.data(), gamma.data(), beta.data(), 1e-5f,
                                            0.1f, residual, relu, sets[i].y.data(), mean.data(), inv_std.data(),
                                            running_mean.data(), running_var.data(), scratch.data());
  }
  void infer(std::size_t i) {
    kd::cuda::batch_norm2d_forward_infer<T>(stream, shape, batch, sets[i].x.data(), gamma.data(), beta.data(),
                                            running_mean.data(), running_var.data(), 1e-5f, nullptr, true,
                                            sets[i].y.data());
  }
  void backward(std::size_t i, const T* dy, bool relu, T* d_residual) {
    kd::cuda::batch_norm2d_backward<T>(stream, shape, batch, sets[i].x.data(), sets[i].y.data(), dy, gamma.data(),
                                       mean.data(), inv_std.data(), relu, d_residual, sets[i].dx.data(), d_gamma.data(),
                                       d_beta.data(), scratch.data());
  }
};

template <class T>
void add(const kd::shape& s) {
  const std::size_t n = batch * s.size();
  const double array = static_cast<double>(n * sizeof(T));
  const auto add_one = [&](const char* operation, double arrays, auto work) {
    const std::string name = kd::text(operation, "/cuda/", type_name<T>, "/", kd::text_of(s));
    add_benchmark(name, arrays * array, [s, arrays, array, work](benchmark::State& state) {
      layers<T> l(s);
      for (std::size_t i = 0; i < l.sets.size(); ++i) l.forward(i, nullptr, true);
      time_sets(state, l.stream, l.sets.size(), arrays * array, [&](std::size_t i) { work(l, i); });
    });
  };
  add_one("batch_norm2d_relu_forward", 2, [](layers<T>& l, std::size_t i) { l.forward(i, nullptr, true); });
  add_one("batch_norm2d_add_relu_forward", 3,
          [](layers<T>& l, std::size_t i) { l.forward(i, l.sets[i].residual.data(), true); });
  add_one("batch_norm2d_then_add_then_relu_forward", 3, [n](layers<T>& l, std::size_t i) {
    l.forward(i, nullptr, false);
    kd::cuda::add<T>(l.stream, n, l.sets[i].y.data(), l.sets[i].residual.data(), l.sets[i].y.data());
    kd::cuda::relu_forward<T>(l.stream, n, l.sets[i].y.data(), l.sets[i].y.data());
  });
  add_one("batch_norm2d_relu_infer", 2, [](layers<T>& l, std::size_t i) { l.infer(i); });
  add_one("batch_norm2d_relu_backward", 4,
          [](layers<T>& l, std::size_t i) { l.backward(i, l.sets[i].dy.data(), true, nullptr); });
  add_one("batch_norm2d_add_relu_backward", 5,
          [](layers<T>& l, std::size_t i) { l.backward(i, l.sets[i].dy.data(), true, l.sets[i].d_residual.data()); });
  add_one("relu_then_batch_norm2d_backward", 5, [n](layers<T>& l, std::size_t i) {
    T* g = l.sets[i].d_residual.data();
    kd::cuda::relu_backward<T>(l.stream, n, l.sets[i].y.data(), l.sets[i].dy.data(), g);
    l.backward(i, g, false, nullptr);
  });
}

// ResNet18 on 32x32 with the ImageNet stem: after conv1, layer 1, 2, 3 and 4; then the CIFAR stem's first layer.
const bool added = [] {
  for (const kd::shape& s : {kd::image_shape(64, 16, 16), kd::image_shape(64, 8, 8), kd::image_shape(128, 4, 4),
                             kd::image_shape(256, 2, 2), kd::image_shape(512, 1, 1), kd::image_shape(64, 32, 32)}) {
    add<float>(s);
    add<bfloat16>(s);
  }
  return true;
}();

}  // namespace
