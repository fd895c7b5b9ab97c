/// Device memory, pinned host memory and shared memory of the emulator. Internal to the emulator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace simt {

/// Every byte of fresh device memory and of shared memory before a block: NaN as float, double and bfloat16.
inline constexpr int poison = 0xff;

struct allocation {
  std::uintptr_t begin = 0;
  std::size_t size = 0;
};

/// A poisoned block, aligned to 256 bytes, with guard zones on both sides; null where the device's memory is spent.
void* allocate_device(std::size_t bytes, std::size_t limit);
/// False where `memory` is not the beginning of a live block.
bool free_device(void* memory);
std::size_t device_bytes_in_use();
/// The live block that holds the address; null where there is none.
const allocation* find_device(const void* address);
/// Whether [address, address + bytes) lies in one live block.
bool on_device(const void* address, std::size_t bytes);
/// Throws error(fault::out_of_bounds) where a guard zone was written to; `name` is the kernel that ran last.
void check_guards(const std::string& name);

void add_pinned(void* memory, std::size_t bytes);
bool remove_pinned(void* memory);
bool is_pinned(const void* memory);

/// Shared memory for one launch; poisons it for each block.
class shared_memory {
 public:
  explicit shared_memory(std::size_t dynamic_bytes);
  ~shared_memory();
  shared_memory(const shared_memory&) = delete;
  shared_memory& operator=(const shared_memory&) = delete;

  void poison_for_block();
  /// Throws error(fault::out_of_bounds) where the block wrote past its dynamic shared memory; `block` names it.
  void check_after_block(const std::string& block);

 private:
  char* dynamic_ = nullptr;
  std::size_t dynamic_bytes_ = 0;
  char* segment_ = nullptr;  // static shared variables, and what else is thread_local in the executable
  std::size_t segment_bytes_ = 0;
  char* saved_ = nullptr;
};

/// The segment of thread_local variables of the executable, on this thread.
struct segment {
  char* begin = nullptr;
  std::size_t size = 0;
};
segment static_segment();

/// All addresses that device memory and dynamic shared memory may have (not under AddressSanitizer).
inline constexpr std::size_t arena_bytes = std::size_t{1} << 35;
inline constexpr std::size_t arena_dynamic_bytes = std::size_t{1} << 20;  // at the arena's beginning
extern char* arena;

}  // namespace simt
