/// The CUDA device of a translation unit that is not compiled for CUDA: the same names, and a clear error.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "kd/backend/device.hpp"
#include "kd/core/error.hpp"
#include "kd/core/precision.hpp"

namespace kd::inline KD_ABI::no_cuda {

/// Throws device_error: this program has no CUDA in it.
[[noreturn]] inline void absent() {
  throw device_error(
      "kd::cuda: this program was built without CUDA; compile the file with nvcc (in CMake: LANGUAGE CUDA and "
      "kd::cuda), "
      "or use the CPU device (--device cpu)");
}

/// Owns nothing: there is no device memory.
template <class T>
class buffer {
 public:
  T* data() { return nullptr; }
  const T* data() const { return nullptr; }
  std::size_t size() const { return 0; }
};

struct device_options {
  int index = 0;
  kd::precision precision = kd::precision::fp32;
};

/// Cannot be made: its constructor throws device_error. Satisfies backend::device, so that programs compile.
class device {
 public:
  template <class T>
  using buffer = no_cuda::buffer<T>;
  template <class T>
  using resident_array = no_cuda::buffer<T>;
  struct recordings {};

  explicit device(const device_options& = {}) { absent(); }

  static constexpr bool built = false;
  static constexpr const char* name = "cuda";
  static constexpr bool rows_in_place = true;
  static constexpr bool runs_at_once = false;
  /// Empty where the device can be used; otherwise why not.
  static std::string unusable_because(int /*index*/ = 0) { return "this program was built without CUDA"; }

  static constexpr std::size_t padded(std::size_t batch) { return batch; }
  static constexpr std::size_t index(const shape&, std::size_t, std::size_t, std::size_t = 0, std::size_t = 0) {
    return 0;
  }
  bool images_are_float() const { return true; }
  kd::precision precision() const { return kd::precision::fp32; }
  template <class T>
  buffer<T> allocate(std::size_t) const {
    absent();
  }
  template <class T>
  buffer<T> resident(std::span<const T>) const {
    absent();
  }
  static constexpr std::size_t conv2d_scratch(const conv2d_geometry&, std::size_t) { return 0; }
  static constexpr std::size_t linear_scratch(std::size_t, std::size_t, std::size_t) { return 0; }
  static constexpr std::size_t batch_norm2d_scratch(const shape&, std::size_t) { return 0; }
  std::size_t loss_scratch(std::size_t, std::size_t) const { absent(); }
  int plan_update(std::span<const optim::live_runs>) const { absent(); }

  // With its types: it is called with braces.
  void gather_images(const image_batch&, const normalisation&, const augmentation&, const step_random&, float*) const {
    absent();
  }

#define KD_ABSENT(operation)                  \
  template <class... Arguments>               \
  void operation(const Arguments&...) const { \
    absent();                                 \
  }
  KD_ABSENT(upload)
  KD_ABSENT(download)
  KD_ABSENT(conv2d_forward)
  KD_ABSENT(conv2d_backward_data)
  KD_ABSENT(conv2d_backward_weight)
  KD_ABSENT(conv2d_relu_pool_forward)
  KD_ABSENT(conv2d_relu_pool_backward_data)
  KD_ABSENT(conv2d_relu_pool_backward_weight)
  KD_ABSENT(linear_forward)
  KD_ABSENT(linear_backward_data)
  KD_ABSENT(linear_backward_weight)
  KD_ABSENT(batch_norm2d_forward_train)
  KD_ABSENT(batch_norm2d_forward_infer)
  KD_ABSENT(batch_norm2d_backward)
  KD_ABSENT(relu_forward)
  KD_ABSENT(relu_backward)
  KD_ABSENT(dropout)
  KD_ABSENT(flatten_forward)
  KD_ABSENT(flatten_backward)
  KD_ABSENT(add)
  KD_ABSENT(copy)
  KD_ABSENT(max_pool2d_forward)
  KD_ABSENT(max_pool2d_backward)
  KD_ABSENT(global_avg_pool2d_forward)
  KD_ABSENT(global_avg_pool2d_backward)
  KD_ABSENT(begin_step)
  KD_ABSENT(to_rows)
  KD_ABSENT(from_rows)
  KD_ABSENT(accumulate_loss)
  KD_ABSENT(update)
  KD_ABSENT(replay)
  KD_ABSENT(synchronize)
  KD_ABSENT(for_each)
#undef KD_ABSENT
};

static_assert(backend::device<device>);

}  // namespace kd::inline KD_ABI::no_cuda
