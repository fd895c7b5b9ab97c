/// Device memory for temporaries: of cuBLASLt and cuDNN, and of operations that take several steps.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "kd/cuda/buffer.hpp"
#include "kd/cuda/error.hpp"
#include "kd/cuda/stream.hpp"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// A stack of temporaries for the work of one stream, whose order keeps one operation's temporaries from the next
/// one's. It grows to the most that was ever needed at once. Growing takes a new piece of memory and keeps the old ones
/// until destruction, since a recorded graph may hold their addresses; the same operations later take no memory.
/// Growing while a graph is recorded is an error.
class workspace {
 public:
  /// Every temporary begins at a multiple of this many bytes.
  static constexpr std::size_t alignment = 256;

  /// The temporaries of one operation, given back together at the end of its scope. Frames nest.
  class frame {
   public:
    explicit frame(workspace& room) : room_(room), pieces_(room.pieces_.size()), used_(room.used_), all_(room.all_) {}
    frame(const frame&) = delete;
    frame& operator=(const frame&) = delete;
    ~frame() {
      // Temporaries from before this frame lie in an older piece if the workspace grew meanwhile.
      room_.used_ = room_.pieces_.size() == pieces_ ? used_ : 0;
      room_.all_ = all_;
    }

    /// n elements, undefined until written, for work that is put into the stream before this frame ends. Null for 0.
    template <class T>
    T* take(const stream& s, std::size_t n) {
      return reinterpret_cast<T*>(room_.reserve(s, n * sizeof(T)));
    }

   private:
    workspace& room_;
    std::size_t pieces_, used_, all_;
  };

  workspace() = default;
  workspace(workspace&&) noexcept = default;
  workspace& operator=(workspace&&) noexcept = default;

  /// Pieces of memory taken so far, and their bytes.
  std::size_t pieces() const { return pieces_.size(); }
  std::size_t capacity() const {
    std::size_t bytes = 0;
    for (const auto& piece : pieces_) bytes += piece.size();
    return bytes;
  }

 private:
  std::byte* reserve(const stream& s, std::size_t bytes) {
    if (bytes == 0) return nullptr;
    const std::size_t wanted = (bytes + alignment - 1) / alignment * alignment;
    if (pieces_.empty() || pieces_.back().size() - used_ < wanted) grow(s, wanted);
    std::byte* memory = pieces_.back().data() + used_;
    used_ += wanted;
    all_ += wanted;
    return memory;
  }
  void grow(const stream& s, std::size_t wanted) {
    const std::size_t largest = pieces_.empty() ? 0 : pieces_.back().size();
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(s.get(), &status), "cudaStreamIsCapturing");
    if (status != cudaStreamCaptureStatusNone)
      throw device_error(text("kd::cuda::workspace: the graph that is being recorded needs ", all_ + wanted,
                              " bytes for temporaries, ", largest,
                              " are there; do the step once before it is recorded"));
    // Room for all present frames, so that next time one piece holds them.
    pieces_.emplace_back(std::max(all_ + wanted, 2 * largest));
    used_ = 0;
  }

  std::vector<buffer<std::byte>> pieces_;  // the last one is in use
  std::size_t used_ = 0;                   // bytes of the last piece
  std::size_t all_ = 0;                    // bytes of all present frames
};

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
