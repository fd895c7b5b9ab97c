/// Device arrays of float, bfloat16 or bytes between sentinels, seen from the host as floats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "kd/core/random.hpp"
#include "kd/cuda/buffer.hpp"
#include "kd/kernel/number.cuh"

namespace kd_test {

using kd::kernel::bfloat16;

/// An array on the device whose neighbours on both sides must keep their values. Starts aligned to 16 bytes, or
/// `shift` elements beyond that.
template <class T>
class guarded_array {
 public:
  /// NaN, or 255 in bytes: what must be overwritten.
  guarded_array(const kd::cuda::stream& s, std::size_t size, std::size_t shift = 0)
      : guarded_array(s, std::vector<float>(size, poison), shift) {}
  /// Values rounded to T.
  guarded_array(const kd::cuda::stream& s, const std::vector<float>& values, std::size_t shift = 0)
      : stream_(s), size_(values.size()), before_(margin + shift), memory_(before_ + size_ + margin) {
    std::vector<T> all(memory_.size(), to_element(sentinel));
    for (std::size_t i = 0; i < size_; ++i) all[before_ + i] = to_element(values[i]);
    kd::cuda::upload(stream_, all.data(), all.size(), memory_.data());
    stream_.synchronize();
  }

  T* data() { return memory_.data() + before_; }
  /// The values now.
  std::vector<float> values() const {
    const auto all = download();
    return std::vector<float>(all.begin() + static_cast<std::ptrdiff_t>(before_),
                              all.begin() + static_cast<std::ptrdiff_t>(before_ + size_));
  }
  /// Whether nothing was written outside.
  bool intact() const {
    const auto all = download();
    for (std::size_t i = 0; i < all.size(); ++i)
      if ((i < before_ || i >= before_ + size_) && all[i] != sentinel) return false;
    return true;
  }

 private:
  static constexpr std::size_t margin = 64;
  static constexpr float sentinel = 77.0f;
  static constexpr float poison = std::is_integral_v<T> ? 255.0f : std::numeric_limits<float>::quiet_NaN();

  static T to_element(float x) {
    if constexpr (std::is_integral_v<T>)
      return static_cast<T>(x);
    else
      return kd::kernel::from_float<T>(x);
  }
  static float to_value(T x) {
    if constexpr (std::is_integral_v<T>)
      return static_cast<float>(x);
    else
      return kd::kernel::to_float(x);
  }
  std::vector<float> download() const {
    std::vector<T> all(memory_.size());
    kd::cuda::download(stream_, memory_.data(), all.size(), all.data());
    std::vector<float> values;
    for (const T x : all) values.push_back(to_value(x));
    return values;
  }

  const kd::cuda::stream& stream_;
  std::size_t size_, before_;
  kd::cuda::buffer<T> memory_;
};

/// The values as T holds them.
template <class T>
std::vector<float> rounded(std::vector<float> values) {
  for (float& v : values) v = kd::kernel::to_float(kd::kernel::from_float<T>(v));
  return values;
}

/// Roughly normal: sums of twelve uniforms.
inline std::vector<float> normal_values(std::size_t n, std::uint32_t draw, double mean = 0, double deviation = 1) {
  std::vector<float> v(n);
  for (std::size_t i = 0; i < n; ++i) {
    double sum = -6;
    for (std::uint32_t k = 0; k < 3; ++k)
      for (const auto word :
           kd::random_at(9, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i), draw, k))
        sum += static_cast<double>(kd::uniform(word));
    v[i] = static_cast<float>(mean + deviation * sum);
  }
  return v;
}

}  // namespace kd_test
