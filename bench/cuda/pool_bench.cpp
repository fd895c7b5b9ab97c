/// Pooling on a GPU beside a device-to-device copy of the bytes that it moves once.
#include "kd/cuda/pool.hpp"

#include "cuda/rotated_sets.hpp"

namespace {

using namespace kd_bench;

constexpr std::size_t batch = 128;

template <class T>
struct max_pools {
  kd::pool2d_geometry g;
  kd::cuda::stream stream;
  struct set {
    kd::cuda::buffer<T> x, y;
    kd::cuda::buffer<std::uint8_t> winners;
  };
  std::vector<set> sets;

  max_pools(const kd::pool2d_geometry& geometry, double bytes) : g(geometry) {
    const std::size_t in = batch * g.in().size(), out = batch * g.out().size();
    for (std::size_t i = 0; i < sets_of(bytes); ++i)
      sets.push_back({filled<T>(stream, in, 1), kd::cuda::buffer<T>(out), kd::cuda::buffer<std::uint8_t>(out)});
  }
  void forward(std::size_t i) {
    kd::cuda::max_pool2d_forward<T>(stream, g, batch, sets[i].x.data(), sets[i].y.data(), sets[i].winners.data());
  }
  void backward(std::size_t i) {
    kd::cuda::max_pool2d_backward<T>(stream, g, batch, sets[i].y.data(), sets[i].winners.data(), sets[i].x.data());
  }
};

template <class T>
void add_max(const kd::pool2d_geometry& g) {
  const double bytes = static_cast<double>(batch * (g.in().size() * sizeof(T) + g.out().size() * (sizeof(T) + 1)));
  const std::string shape = kd::text("/cuda/", type_name<T>, "/", kd::text_of(g.in()), "_", g.kernel, "x", g.kernel);
  add_benchmark("max_pool2d_forward" + shape, bytes, [g, bytes](benchmark::State& state) {
    max_pools<T> p(g, bytes);
    time_sets(state, p.stream, p.sets.size(), bytes, [&](std::size_t i) { p.forward(i); });
  });
  add_benchmark("max_pool2d_backward" + shape, bytes, [g, bytes](benchmark::State& state) {
    max_pools<T> p(g, bytes);
    for (std::size_t i = 0; i < p.sets.size(); ++i) p.forward(i);
    time_sets(state, p.stream, p.sets.size(), bytes, [&](std::size_t i) { p.backward(i); });
  });
}

template <class T>
void add_mean(const kd::shape& s) {
  const double bytes = static_cast<double>(batch * (s.size() + s.channels) * sizeof(T));
  const std::string shape = kd::text("/cuda/", type_name<T>, "/", kd::text_of(s));
  const auto add_one = [&](const char* operation, bool forward) {
    add_benchmark(operation + shape, bytes, [s, bytes, forward](benchmark::State& state) {
      const kd::cuda::stream stream;
      std::vector<kd::cuda::buffer<T>> x, y;
      for (std::size_t i = 0; i < sets_of(bytes); ++i) {
        x.push_back(filled<T>(stream, batch * s.size(), 1));
        y.push_back(filled<T>(stream, batch * s.channels, 2));
      }
      time_sets(state, stream, x.size(), bytes, [&](std::size_t i) {
        if (forward)
          kd::cuda::global_avg_pool2d_forward<T>(stream, s, batch, x[i].data(), y[i].data());
        else
          kd::cuda::global_avg_pool2d_backward<T>(stream, s, batch, y[i].data(), x[i].data());
      });
    });
  };
  add_one("global_avg_pool2d_forward", true);
  add_one("global_avg_pool2d_backward", false);
}

// ResNet18's max pool and LightNN's two; the mean behind ResNet18's ImageNet and CIFAR stems, and of a 7x7 image.
const bool added = [] {
  for (const kd::pool2d_geometry& g :
       {kd::pool2d_geometry{64, 16, 16, 3, 2, 1}, {16, 32, 32, 2, 2, 0}, {16, 16, 16, 2, 2, 0}}) {
    add_max<float>(g);
    add_max<bfloat16>(g);
  }
  for (const kd::shape& s : {kd::image_shape(512, 1, 1), kd::image_shape(512, 4, 4), kd::image_shape(512, 7, 7)}) {
    add_mean<float>(s);
    add_mean<bfloat16>(s);
  }
  return true;
}();

}  // namespace
