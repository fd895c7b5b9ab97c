/// Arrays in the GPU's memory for tests of kernels: poisoned before they are written, watched on both sides.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "kd/cuda/buffer.hpp"
#include "kd/kernel/number.cuh"
#include "support/numbers.hpp"

namespace kd_test {

/// The values, each rounded to T.
template <class T>
std::vector<T> rounded_to(const std::vector<float>& from) {
  std::vector<T> to(from.size());
  for (std::size_t i = 0; i < from.size(); ++i)
    if constexpr (std::is_integral_v<T>)
      to[i] = static_cast<T>(from[i]);
    else
      to[i] = kd::kernel::from_float<T>(from[i]);
  return to;
}
template <class T>
std::vector<float> to_floats(const std::vector<T>& from) {
  std::vector<float> to(from.size());
  for (std::size_t i = 0; i < from.size(); ++i)
    if constexpr (std::is_integral_v<T>)
      to[i] = static_cast<float>(from[i]);
    else
      to[i] = kd::kernel::to_float(from[i]);
  return to;
}
/// The values as T holds them.
template <class T>
std::vector<float> rounded(const std::vector<float>& values) {
  return to_floats(rounded_to<T>(values));
}

/// random_floats, each rounded to T.
template <class T>
std::vector<T> random_numbers(std::size_t n, std::uint32_t draw) {
  return rounded_to<T>(random_floats(n, draw));
}

/// n elements of device memory. Reading them back throws where anything before or after them was written.
template <class T>
class guarded_array {
 public:
  /// Every byte 0xff: NaN as float and as bfloat16.
  /// @param shift elements by which the array lies off the alignment of device memory
  guarded_array(const kd::cuda::stream& s, std::size_t n, std::size_t shift = 0)
      : stream_(&s), size_(n), begin_(guard + shift * sizeof(T)), memory_(begin_ + n * sizeof(T) + guard) {
    std::vector<unsigned char> bytes(memory_.size(), 0xff);
    for (std::size_t i = 0; i < begin_; ++i) bytes[i] = mark;
    for (std::size_t i = 0; i < guard; ++i) bytes[bytes.size() - 1 - i] = mark;
    kd::cuda::upload(s, bytes.data(), bytes.size(), memory_.data());
  }
  guarded_array(const kd::cuda::stream& s, const std::vector<T>& values, std::size_t shift = 0)
      : guarded_array(s, values.size(), shift) {
    kd::cuda::upload(s, values.data(), values.size(), data());
  }
  /// The values rounded to T.
  guarded_array(const kd::cuda::stream& s, const std::vector<float>& values,
                std::size_t shift = 0) requires(!std::is_same_v<T, float>)
      : guarded_array(s, rounded_to<T>(values), shift) {}

  T* data() { return reinterpret_cast<T*>(memory_.data() + begin_); }
  std::vector<T> values() const {
    const std::vector<unsigned char> bytes = download();
    if (!guards_hold(bytes)) throw std::runtime_error("a kernel wrote outside of its array");
    std::vector<T> result(size_);
    if (size_ > 0) std::memcpy(result.data(), bytes.data() + begin_, size_ * sizeof(T));
    return result;
  }
  std::vector<float> floats() const { return to_floats(values()); }
  /// Whether nothing was written outside.
  bool intact() const { return guards_hold(download()); }

 private:
  static constexpr unsigned char mark = 0xa5;
  // The emulation's own checks see reads as well, but only where the allocation ends with the array.
#if defined(KD_SIMT_ASAN) || defined(KD_SIMT_RACE)
  static constexpr std::size_t guard = 0;
#else
  static constexpr std::size_t guard = 256;
#endif

  std::vector<unsigned char> download() const {
    std::vector<unsigned char> bytes(memory_.size());
    kd::cuda::download(*stream_, memory_.data(), bytes.size(), bytes.data());
    return bytes;
  }
  bool guards_hold(const std::vector<unsigned char>& bytes) const {
    // Says to g++ 12, which warns of a wrapped size at -O3, that there is none.
    if (bytes.size() < begin_ + guard) throw std::length_error("an array too large for its guards");
    const auto marked = [](unsigned char byte) { return byte == mark; };
    const auto end = bytes.begin() + static_cast<std::ptrdiff_t>(begin_ + size_ * sizeof(T));
    return std::all_of(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(begin_), marked) &&
           std::all_of(end, bytes.end(), marked);
  }

  const kd::cuda::stream* stream_;
  std::size_t size_, begin_;
  kd::cuda::buffer<unsigned char> memory_;
};

/// Whether the arrays hold the same bits.
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}
/// Whether every byte is still the poison of a new guarded_array.
template <class T>
bool untouched(const std::vector<T>& values) {
  const std::vector<unsigned char> poison(values.size() * sizeof(T), 0xff);
  return values.empty() || std::memcmp(values.data(), poison.data(), poison.size()) == 0;
}

/// The largest relative error of one rounding to T: half a unit in the last place.
template <class T>
inline constexpr double rounding = 0x1p-24;
template <>
inline constexpr double rounding<kd::kernel::bfloat16> = 0x1p-8;
template <>
inline constexpr double rounding<kd::kernel::float16> = 0x1p-11;

}  // namespace kd_test
