/// Memory of the GPU, and copies to and from it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <utility>

#include "kd/core/sizes.hpp"
#include "kd/cuda/error.hpp"
#include "kd/cuda/stream.hpp"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// Owns `size()` elements in device memory, aligned to 256 bytes; their values are undefined until written. Move-only.
template <class T>
class buffer {
 public:
  buffer() = default;
  explicit buffer(std::size_t size) : size_(size) {
    if (size == 0) return;
    const std::size_t bytes = product_of("kd::cuda::buffer", {size, sizeof(T)}, "use a smaller batch_size");
    void* memory = nullptr;
    const cudaError_t code = cudaMalloc(&memory, bytes);
    if (code != cudaSuccess) fail(code, bytes);
    data_ = static_cast<T*>(memory);
  }
  buffer(buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  buffer& operator=(buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~buffer() {
    if (data_ != nullptr) cudaFree(data_);
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  [[noreturn]] static void fail(cudaError_t code, std::size_t bytes) {
    std::size_t free = 0, all = 0;
    if (cudaMemGetInfo(&free, &all) != cudaSuccess) free = all = 0;
    check(code, text("cudaMalloc of ", bytes, " bytes (", free, " of the GPU's ", all, " bytes are free)"));
    throw device_error("kd::cuda: cudaMalloc gave no memory and no error");
  }

  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Copies n elements to the device, in stream order; `from` may be changed as soon as this returns.
template <class T>
void upload(stream_view s, const T* from, std::size_t n, T* to) {
  if (n > 0) check(cudaMemcpyAsync(to, from, n * sizeof(T), cudaMemcpyHostToDevice, s.get()), "cudaMemcpyAsync to GPU");
}

/// Copies n elements to the host and waits for them.
template <class T>
void download(stream_view s, const T* from, std::size_t n, T* to) {
  if (n == 0) return;
  check(cudaMemcpyAsync(to, from, n * sizeof(T), cudaMemcpyDeviceToHost, s.get()), "cudaMemcpyAsync from GPU");
  s.synchronize();
}

/// Copies n elements within the device, in stream order.
template <class T>
void copy(stream_view s, const T* from, std::size_t n, T* to) {
  if (n > 0) check(cudaMemcpyAsync(to, from, n * sizeof(T), cudaMemcpyDeviceToDevice, s.get()), "cudaMemcpyAsync");
}

/// Sets n elements to zero bytes, in stream order.
template <class T>
void fill_zero(stream_view s, T* memory, std::size_t n) {
  if (n > 0) check(cudaMemsetAsync(memory, 0, n * sizeof(T), s.get()), "cudaMemsetAsync");
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
