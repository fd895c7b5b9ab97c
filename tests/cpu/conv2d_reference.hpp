/// Problems for the tests of convolutions and their float64 answers.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

#include "kd/core/shape.hpp"
#include "kd/cpu/parallel.hpp"

namespace kd_test {

/// Floats aligned to 64 bytes.
class aligned_floats {
 public:
  explicit aligned_floats(std::size_t size, float fill = 0)
      : size_(size), data_(static_cast<float*>(::operator new (size * sizeof(float), std::align_val_t{64}))) {
    std::fill_n(data_, size, fill);
  }
  aligned_floats(const aligned_floats& other) : aligned_floats(other.size_) { std::copy_n(other.data_, size_, data_); }
  aligned_floats& operator=(const aligned_floats&) = delete;
  ~aligned_floats() { ::operator delete (data_, std::align_val_t{64}); }
  float* data() { return data_; }
  const float* data() const { return data_; }
  std::size_t size() const { return size_; }
  float* begin() { return data_; }
  float* end() { return data_ + size_; }
  const float* begin() const { return data_; }
  const float* end() const { return data_ + size_; }
  float& operator[](std::size_t i) { return data_[i]; }
  float operator[](std::size_t i) const { return data_[i]; }

 private:
  std::size_t size_;
  float* data_;
};

/// Numbers in [-1, 1) from a short multiplicative hash: they need no quality, only variety.
inline aligned_floats noisy(std::uint64_t stream, std::size_t size) {
  aligned_floats values(size);
  for (std::size_t i = 0; i < size; ++i) {
    std::uint64_t z = (stream << 40) + i + 1;
    z = (z ^ (z >> 29)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 32)) * 0x94d049bb133111ebULL;
    values[i] = static_cast<float>(static_cast<std::int64_t>(z >> 40) - (1 << 23)) / static_cast<float>(1 << 23);
  }
  return values;
}

struct conv2d_problem {
  kd::conv2d_geometry g;
  std::size_t batch, blocks;
  aligned_floats x, weight, bias, dy, dx;  // dx: what backward data adds to

  conv2d_problem(const kd::conv2d_geometry& geometry, std::size_t n)
      : g(geometry),
        batch(n),
        blocks(kd::cpu::blocks_of(n)),
        x(noisy(1, blocks * kd::cpu::lanes * g.in().size())),
        weight(noisy(2, g.weights())),
        bias(noisy(3, g.out_channels)),
        dy(noisy(4, blocks * kd::cpu::lanes * g.out().size())),
        dx(noisy(5, x.size())) {
    clear_beyond(dy);
    clear_beyond(dx);
  }

  bool beyond(std::size_t index, std::size_t size) const {
    return index / (size / blocks) * kd::cpu::lanes + index % kd::cpu::lanes >= batch;
  }
  void clear_beyond(aligned_floats& values) const {
    for (std::size_t i = 0; i < values.size(); ++i)
      if (beyond(i, values.size())) values[i] = 0;
  }
  bool zero_beyond(const aligned_floats& values) const {
    for (std::size_t i = 0; i < values.size(); ++i)
      if (beyond(i, values.size()) && values[i] != 0) return false;
    return true;
  }
  /// The values of the samples alone, without the lanes beyond the batch.
  template <class Values>
  auto samples(const Values& values) const {
    std::vector<double> kept;
    for (std::size_t i = 0; i < values.size(); ++i)
      if (!beyond(i, values.size())) kept.push_back(static_cast<double>(values[i]));
    return kept;
  }
};

/// Calls body(output index, weight index, input index) for every product of the convolution that is not with padding.
template <class Body>
void for_each_product(const conv2d_problem& p, const Body& body) {
  const kd::conv2d_geometry& g = p.g;
  const auto at = [](const kd::shape& s, std::size_t n, std::size_t c, std::size_t h, std::size_t w) {
    constexpr std::size_t lanes = kd::cpu::lanes;
    return ((((n / lanes) * s.height + h) * s.width + w) * s.channels + c) * lanes + n % lanes;
  };
  for (std::size_t n = 0; n < p.batch; ++n)
    for (std::size_t oh = 0; oh < g.out_height(); ++oh)
      for (std::size_t ow = 0; ow < g.out_width(); ++ow)
        for (std::size_t kh = 0; kh < g.kernel_h; ++kh)
          for (std::size_t kw = 0; kw < g.kernel_w; ++kw) {
            const std::size_t ih = oh * g.stride_h + kh - g.padding_h, iw = ow * g.stride_w + kw - g.padding_w;
            if (ih >= g.in_height || iw >= g.in_width) continue;  // below 0 wraps around to very large
            for (std::size_t co = 0; co < g.out_channels; ++co)
              for (std::size_t ci = 0; ci < g.in_channels; ++ci)
                body(at(g.out(), n, co, oh, ow), ((co * g.kernel_h + kh) * g.kernel_w + kw) * g.in_channels + ci,
                     at(g.in(), n, ci, ih, iw));
          }
}

/// The definition of the convolution's sums, without bias.
inline std::vector<double> convolved(const conv2d_problem& p) {
  std::vector<double> y(p.dy.size());
  for_each_product(p, [&](std::size_t out, std::size_t w, std::size_t in) {
    y[out] += static_cast<double>(p.x[in]) * static_cast<double>(p.weight[w]);
  });
  return y;
}

/// The definition of its gradients for a given dy.
struct conv2d_gradients {
  std::vector<double> dx, dx_added, dw, db;

  conv2d_gradients(const conv2d_problem& p, const aligned_floats& dy)
      : dx(p.dx.size()), dx_added(p.dx.begin(), p.dx.end()), dw(p.weight.size()), db(p.bias.size()) {
    for_each_product(p, [&](std::size_t out, std::size_t w, std::size_t in) {
      dx[in] += static_cast<double>(dy[out]) * static_cast<double>(p.weight[w]);
      dw[w] += static_cast<double>(dy[out]) * static_cast<double>(p.x[in]);
    });
    for (std::size_t i = 0; i < dx.size(); ++i) dx_added[i] += dx[i];
    for (std::size_t i = 0; i < dy.size(); ++i) db[i / kd::cpu::lanes % db.size()] += static_cast<double>(dy[i]);
  }
};

}  // namespace kd_test
