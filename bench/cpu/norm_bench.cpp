/// Batch norm and the other memory-bound layers of the CPU device, against a non-temporal triad.
///
/// bytes_per_second counts what the formula must move once: each input and output of the operation. A kernel of two
/// passes over data that does not stay in cache cannot reach the triad's figure.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "kd/core/random.hpp"
#include "kd/cpu/activation.hpp"
#include "kd/cpu/images.hpp"
#include "kd/cpu/norm.hpp"
#include "kd/cpu/pool.hpp"

namespace {

constexpr std::size_t batch = 128;
constexpr int threads = 2;
const kd::cpu::parallel par{threads};

/// 64-byte aligned floats, as kd's own buffers.
class buffer {
 public:
  explicit buffer(std::size_t n, std::uint32_t draw = 0)
      : size_(n), data_(static_cast<float*>(::operator new (n * sizeof(float), std::align_val_t{64}))) {
    for (std::size_t i = 0; i < n; ++i)
      data_[i] = kd::uniform(kd::random_at(1, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i / 4),
                                           draw)[i % 4]) -
                 0.5f;
  }
  buffer(const buffer&) = delete;
  buffer& operator=(const buffer&) = delete;
  ~buffer() { ::operator delete (data_, std::align_val_t{64}); }
  operator float*() { return data_; }  // NOLINT: a plain pointer in all but lifetime
  std::size_t size() const { return size_; }

 private:
  std::size_t size_;
  float* data_;
};

// ResNet18 on 32x32 with the ImageNet stem: after conv1, layer 1, 2, 3 and 4; then the CIFAR stem's first layer.
const kd::shape images[] = {kd::image_shape(64, 16, 16), kd::image_shape(64, 8, 8),  kd::image_shape(128, 4, 4),
                            kd::image_shape(256, 2, 2),  kd::image_shape(512, 1, 1), kd::image_shape(64, 32, 32)};

void per_image(benchmark::internal::Benchmark* b) {
  for (int i = 0; i < 6; ++i) b->Arg(i);
  b->UseRealTime()->Unit(benchmark::kMicrosecond);
}

void finish(benchmark::State& state, double bytes, const kd::shape& s) {
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
  state.SetLabel(kd::text_of(s));
}

struct norm_buffers {
  kd::shape s;
  std::size_t n;
  buffer x, y, residual, dy, dx, gamma, beta, mean, inv_std, running_mean, running_var, d_gamma, d_beta;
  explicit norm_buffers(const kd::shape& size)
      : s(size),
        n(kd::cpu::storage_size(size, batch)),
        x(n, 1),
        y(n, 2),
        residual(n, 3),
        dy(n, 4),
        dx(n, 5),
        gamma(s.channels),
        beta(s.channels),
        mean(s.channels),
        inv_std(s.channels),
        running_mean(s.channels),
        running_var(s.channels),
        d_gamma(s.channels),
        d_beta(s.channels) {
    for (std::size_t c = 0; c < s.channels; ++c) running_var[c] = 1.0f;
  }
  double bytes() const { return static_cast<double>(n) * sizeof(float); }
  void forward(bool with_residual) {
    kd::cpu::batch_norm2d_forward_train(par, s, batch, x, gamma, beta, {},
                                        with_residual ? static_cast<float*>(residual) : nullptr, true, y, mean, inv_std,
                                        running_mean, running_var);
  }
};

void norm_forward(benchmark::State& state) {
  norm_buffers b(images[state.range(0)]);
  for (auto _ : state) b.forward(false);
  finish(state, 2 * b.bytes(), b.s);
}
BENCHMARK(norm_forward)->Name("batch_norm2d_relu_forward/cpu")->Apply(per_image);

void norm_residual_forward(benchmark::State& state) {
  norm_buffers b(images[state.range(0)]);
  for (auto _ : state) b.forward(true);
  finish(state, 3 * b.bytes(), b.s);
}
BENCHMARK(norm_residual_forward)->Name("batch_norm2d_residual_relu_forward/cpu")->Apply(per_image);

void norm_infer(benchmark::State& state) {
  norm_buffers b(images[state.range(0)]);
  for (auto _ : state)
    kd::cpu::batch_norm2d_forward_infer(par, b.s, batch, b.x, b.gamma, b.beta, b.running_mean, b.running_var, {},
                                        nullptr, true, b.y);
  finish(state, 2 * b.bytes(), b.s);
}
BENCHMARK(norm_infer)->Name("batch_norm2d_relu_infer/cpu")->Apply(per_image);

void norm_backward(benchmark::State& state) {
  norm_buffers b(images[state.range(0)]);
  b.forward(false);
  for (auto _ : state)
    kd::cpu::batch_norm2d_backward(par, b.s, batch, b.x, b.y, b.dy, b.gamma, b.mean, b.inv_std, true, nullptr, b.dx,
                                   b.d_gamma, b.d_beta);
  finish(state, 4 * b.bytes(), b.s);
}
BENCHMARK(norm_backward)->Name("batch_norm2d_relu_backward/cpu")->Apply(per_image);

void norm_residual_backward(benchmark::State& state) {
  norm_buffers b(images[state.range(0)]);
  b.forward(true);
  for (auto _ : state)
    kd::cpu::batch_norm2d_backward(par, b.s, batch, b.x, b.y, b.dy, b.gamma, b.mean, b.inv_std, true, b.residual, b.dx,
                                   b.d_gamma, b.d_beta);
  finish(state, 5 * b.bytes(), b.s);
}
BENCHMARK(norm_residual_backward)->Name("batch_norm2d_residual_relu_backward/cpu")->Apply(per_image);

void relu_forward(benchmark::State& state) {
  norm_buffers b(images[state.range(0)]);
  for (auto _ : state) kd::cpu::relu_forward(par, b.n, b.x, b.y);
  finish(state, 2 * b.bytes(), b.s);
}
BENCHMARK(relu_forward)->Name("relu_forward/cpu")->Arg(0)->Arg(5)->UseRealTime()->Unit(benchmark::kMicrosecond);

// ResNet18's only max pool (3x3/2) and LightNN's two (2x2).
const kd::pool2d_geometry pools[] = {{64, 16, 16, 3, 2, 1}, {16, 32, 32, 2, 2, 0}, {16, 16, 16, 2, 2, 0}};

void pool_forward(benchmark::State& state) {
  const auto g = pools[state.range(0)];
  buffer x(kd::cpu::storage_size(g.in(), batch)), y(kd::cpu::storage_size(g.out(), batch));
  std::vector<std::uint8_t> arg(y.size());
  for (auto _ : state) kd::cpu::max_pool2d_forward(par, g, batch, x, y, arg.data());
  finish(state, 4.0 * static_cast<double>(x.size()) + 5.0 * static_cast<double>(y.size()), g.in());
}
BENCHMARK(pool_forward)->Name("max_pool2d_forward/cpu")->DenseRange(0, 2)->UseRealTime()->Unit(benchmark::kMicrosecond);

void pool_backward(benchmark::State& state) {
  const auto g = pools[state.range(0)];
  buffer x(kd::cpu::storage_size(g.in(), batch)), y(kd::cpu::storage_size(g.out(), batch));
  std::vector<std::uint8_t> arg(y.size());
  kd::cpu::max_pool2d_forward(par, g, batch, x, y, arg.data());
  for (auto _ : state) kd::cpu::max_pool2d_backward(par, g, batch, y, arg.data(), x);
  finish(state, 4.0 * static_cast<double>(x.size()) + 5.0 * static_cast<double>(y.size()), g.in());
}
BENCHMARK(pool_backward)
    ->Name("max_pool2d_backward/cpu")
    ->DenseRange(0, 2)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

void dropout(benchmark::State& state) {
  const kd::shape s = kd::row_shape(static_cast<std::size_t>(state.range(0)));
  buffer x(kd::cpu::storage_size(s, batch)), y(x.size());
  std::uint32_t step = 0;
  for (auto _ : state) kd::cpu::dropout(par, s, batch, 0.1f, 1, step++, 0, x, y);
  finish(state, 8.0 * static_cast<double>(x.size()), s);
}
BENCHMARK(dropout)->Name("dropout/cpu")->Arg(256)->Arg(4096)->UseRealTime()->Unit(benchmark::kMicrosecond);

void flatten(benchmark::State& state) {
  const kd::shape s = kd::image_shape(16, 8, 8);
  buffer x(kd::cpu::storage_size(s, batch)), y(x.size());
  for (auto _ : state) kd::cpu::flatten_forward(par, s, batch, x, y);
  finish(state, 8.0 * static_cast<double>(x.size()), s);
}
BENCHMARK(flatten)->Name("flatten_forward/cpu")->UseRealTime()->Unit(benchmark::kMicrosecond);

void gather(benchmark::State& state) {
  const kd::shape s = kd::image_shape(3, 32, 32);
  constexpr std::uint32_t samples = 10000;
  std::vector<std::uint8_t> pixels(samples * s.size());
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i * 2654435761u >> 13);
  const kd::augmentation augment{state.range(0) ? std::size_t{4} : std::size_t{0}, state.range(0) != 0};
  buffer out(kd::cpu::storage_size(s, batch));
  std::vector<std::uint32_t> indices(batch);
  std::uint32_t step = 0;
  for (auto _ : state) {
    for (std::uint32_t i = 0; i < batch; ++i) indices[i] = (step * 7919u + i * 104729u) % samples;
    ++step;
    kd::cpu::gather_images(par, {pixels.data(), s, indices.data(), batch}, kd::imagenet_normalisation, augment, 1, 0,
                           out);
  }
  finish(state, static_cast<double>(batch * s.size()) * (1 + sizeof(float)), s);
}
BENCHMARK(gather)->Name("gather_images/cpu/augmented")->Arg(0)->Arg(1)->UseRealTime()->Unit(benchmark::kMicrosecond);

/// a[i] = b[i] + 3 * c[i] over `range` bytes per array, plain stores: what a pass over such data can reach at most.
void triad(benchmark::State& state) {
  const auto n = static_cast<std::size_t>(state.range(0)) / sizeof(float);
  buffer a(n, 1), b(n, 2), c(n, 3);
  for (auto _ : state) {
    par.split(n / kd::cpu::lanes, [&](std::size_t begin, std::size_t end, std::size_t) {
      float* to = a;
      const float *left = b, *right = c;
      for (std::size_t i = begin * kd::cpu::lanes; i < end * kd::cpu::lanes; i += kd::cpu::native_width) {
        kd::cpu::detail::floats u, v;
        kd::cpu::detail::load(u, left + i);
        kd::cpu::detail::load(v, right + i);
        kd::cpu::detail::store(to + i, u + v * 3.0f);
      }
    });
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(n * 12) * state.iterations());
}
BENCHMARK(triad)
    ->Name("triad/cpu/bytes")
    ->Arg(256 << 10)
    ->Arg(2 << 20)
    ->Arg(8 << 20)
    ->Arg(32 << 20)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
