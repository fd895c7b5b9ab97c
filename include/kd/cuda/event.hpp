/// CUDA events: marks in a stream that other streams can wait for, and the time between two of them.
#pragma once

#include <cuda_runtime_api.h>

#include <utility>

#include "kd/cuda/error.hpp"
#include "kd/cuda/stream.hpp"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// Owns an event. Move-only.
class event {
 public:
  event() { check(cudaEventCreateWithFlags(&handle_, cudaEventDefault), "cudaEventCreateWithFlags"); }
  event(event&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  event& operator=(event&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~event() {
    if (handle_ != nullptr) cudaEventDestroy(handle_);
  }

  /// Marks what was put into the stream so far.
  void record(const stream& s) { check(cudaEventRecord(handle_, s.get()), "cudaEventRecord"); }
  /// What is put into the stream from now on waits for the mark; the host does not.
  void make_wait(const stream& s) const { check(cudaStreamWaitEvent(s.get(), handle_, 0), "cudaStreamWaitEvent"); }
  /// The host waits for the mark.
  void synchronize() const { check(cudaEventSynchronize(handle_), "cudaEventSynchronize"); }
  /// Milliseconds from an earlier event to this one; both must have happened.
  float milliseconds_since(const event& earlier) const {
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, earlier.handle_, handle_), "cudaEventElapsedTime");
    return milliseconds;
  }

 private:
  cudaEvent_t handle_ = nullptr;
};

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
