/// Memory of the CPU device: aligned to a cache line, in huge pages where the system has them.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/sizes.hpp"

namespace kd::inline KD_ABI::cpu {

/// An owned array of trivially copyable elements, zeroed, aligned to 64 bytes; move-only. Throws argument_error on a
/// size that no address reaches, and device_error where the memory is not there.
template <class T>
class buffer {
 public:
  buffer() = default;
  explicit buffer(std::size_t size) : size_(size) {
    if (size == 0) return;
    const std::size_t bytes = product_of("kd::cpu::buffer", {size, sizeof(T)}, remedy), rounded = allocated(size);
    const std::size_t alignment = bytes >= huge_page ? huge_page : 64;
    void* const memory = ::operator new (rounded, std::align_val_t{alignment}, std::nothrow);
    if (memory == nullptr) throw device_error(text("kd::cpu::buffer: no memory for ", bytes, " bytes; ", remedy));
    data_ = std::unique_ptr<T[], release>(static_cast<T*>(memory), release{alignment});
#if defined(__linux__)
    // 512 rows of a weight matrix lie on 512 small pages, more than a core translates without walking tables.
    if (bytes >= huge_page) (void)madvise(memory, rounded, MADV_HUGEPAGE);
#endif
    std::memset(memory, 0, rounded);
  }

  /// Bytes of an array of so many elements: whole lines of a cache, or whole huge pages.
  static constexpr std::size_t allocated(std::size_t size) {
    const std::size_t bytes = size * sizeof(T), alignment = bytes >= huge_page ? huge_page : 64;
    return (bytes + alignment - 1) / alignment * alignment;
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }

 private:
  static constexpr std::size_t huge_page = std::size_t{1} << 21;
  static constexpr std::string_view remedy = "use a smaller batch_size, or a smaller network";
  struct release {
    std::size_t alignment = 64;
    void operator()(T* memory) const { ::operator delete (memory, std::align_val_t{alignment}); }
  };
  std::unique_ptr<T[], release> data_;
  std::size_t size_ = 0;
};

}  // namespace kd::inline KD_ABI::cpu
