/// CUDA streams: what is put into one runs in order, beside other streams.
#pragma once

#include <cuda_runtime_api.h>

#include <utility>

#include "kd/cuda/error.hpp"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// Owns a stream that does not wait for the default one. Move-only.
class stream {
 public:
  stream() { check(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"); }
  stream(stream&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  stream& operator=(stream&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~stream() {
    if (handle_ != nullptr) cudaStreamDestroy(handle_);
  }

  cudaStream_t get() const { return handle_; }
  /// Waits for everything that was put into the stream, and throws what went wrong in it.
  void synchronize() const { check(cudaStreamSynchronize(handle_), "cudaStreamSynchronize"); }

 private:
  cudaStream_t handle_ = nullptr;
};

/// A stream that somebody else owns: of kd, of a framework, of one's own. It must live as long as what is put into it.
class stream_view {
 public:
  stream_view(const stream& s) : handle_(s.get()) {}
  /// Null is the default stream.
  explicit stream_view(cudaStream_t handle) : handle_(handle) {}

  cudaStream_t get() const { return handle_; }
  /// Waits for everything that was put into the stream, and throws what went wrong in it.
  void synchronize() const { check(cudaStreamSynchronize(handle_), "cudaStreamSynchronize"); }

 private:
  cudaStream_t handle_;
};

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
