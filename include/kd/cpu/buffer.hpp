/// Memory of the CPU device: aligned to a cache line, in huge pages where the system has them.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "kd/core/abi.hpp"

namespace kd::inline KD_ABI::cpu {

/// An owned array of trivially copyable elements, zeroed, aligned to 64 bytes; move-only.
template <class T>
class buffer {
 public:
  buffer() = default;
  explicit buffer(std::size_t size) : size_(size) {
    if (size == 0) return;
    const std::size_t bytes = size * sizeof(T);
    const std::size_t alignment = bytes >= huge_page ? huge_page : 64;
    const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    void* memory = ::operator new (rounded, std::align_val_t{alignment});
    data_ = std::unique_ptr<T[], release>(static_cast<T*>(memory), release{alignment});
#if defined(__linux__)
    // 512 rows of a weight matrix lie on 512 small pages, more than a core translates without walking tables.
    if (bytes >= huge_page) (void)madvise(memory, rounded, MADV_HUGEPAGE);
#endif
    std::memset(memory, 0, rounded);
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }

 private:
  static constexpr std::size_t huge_page = std::size_t{1} << 21;
  struct release {
    std::size_t alignment = 64;
    void operator()(T* memory) const { ::operator delete (memory, std::align_val_t{alignment}); }
  };
  std::unique_ptr<T[], release> data_;
  std::size_t size_ = 0;
};

}  // namespace kd::inline KD_ABI::cpu
