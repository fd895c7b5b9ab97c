/// CUDA graphs: work that is recorded once and then launched as a whole.
#pragma once

#include <cuda_runtime_api.h>

#include <utility>

#include "kd/cuda/error.hpp"
#include "kd/cuda/stream.hpp"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// Owns an executable graph. Move-only. It holds the addresses, sizes and numbers that its kernels were given while it
/// was recorded: the memory must live as long, and what changes between launches must be read from memory.
class graph {
 public:
  /// Records what `work()` puts into the stream, without doing it. `work` must not allocate device memory or wait for
  /// the stream: CUDA refuses that of this thread (other threads may). What it throws is passed on, and the stream can
  /// be used as before.
  template <class Work>
  static graph capture(const stream& s, Work&& work) {
    check(cudaStreamBeginCapture(s.get(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    recording recorded;
    try {
      std::forward<Work>(work)();
    } catch (...) {
      // What went wrong is in the exception; the failure that ending returns now follows from it.
      static_cast<void>(cudaStreamEndCapture(s.get(), &recorded.handle));
      cudaGetLastError();
      throw;
    }
    check(cudaStreamEndCapture(s.get(), &recorded.handle), "cudaStreamEndCapture");
    graph made;
    check(cudaGraphInstantiate(&made.handle_, recorded.handle, 0), "cudaGraphInstantiate");
    // Otherwise the first launch would do this.
    check(cudaGraphUpload(made.handle_, s.get()), "cudaGraphUpload");
    return made;
  }

  graph(graph&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  graph& operator=(graph&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~graph() {
    if (handle_ != nullptr) cudaGraphExecDestroy(handle_);
  }

  /// Puts all of the recorded work into the stream.
  void launch(const stream& s) const { check(cudaGraphLaunch(handle_, s.get()), "cudaGraphLaunch"); }

 private:
  struct recording {
    cudaGraph_t handle = nullptr;
    recording() = default;
    recording(const recording&) = delete;
    recording& operator=(const recording&) = delete;
    ~recording() {
      if (handle != nullptr) cudaGraphDestroy(handle);
    }
  };

  graph() = default;

  cudaGraphExec_t handle_ = nullptr;
};

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
