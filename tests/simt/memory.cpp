// Where emulated memory lies, and how it is poisoned and guarded.
#define KD_SIMT_RUNTIME
#include "memory.hpp"

#include <link.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

#include "block.hpp"
#include "watch.hpp"

namespace simt {

char* arena = nullptr;

namespace {

constexpr std::size_t alignment = 256;
[[maybe_unused]] constexpr std::size_t guard_bytes = 256;
[[maybe_unused]] constexpr unsigned char guard_byte = 0xa5;
[[maybe_unused]] constexpr std::size_t dynamic_offset = 4096;

std::map<std::uintptr_t, allocation> live;    // device memory by its first address
std::map<std::uintptr_t, allocation> pinned;  // pinned host memory
std::size_t in_use = 0;
char* dynamic_now = nullptr;

std::uintptr_t number(const void* address) { return reinterpret_cast<std::uintptr_t>(address); }

const allocation* find(const std::map<std::uintptr_t, allocation>& in, const void* address) {
  auto after = in.upper_bound(number(address));
  if (after == in.begin()) return nullptr;
  const allocation& a = std::prev(after)->second;
  return number(address) < a.begin + a.size ? &a : nullptr;
}

#if !defined(KD_SIMT_ASAN)
// Blocks are cut from one range of addresses, and no address is ever given out twice.
void make_arena() {
  if (arena != nullptr) return;
  void* got = mmap(nullptr, arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (got == MAP_FAILED) throw std::bad_alloc();
  arena = static_cast<char*>(got);
  watch_arena();
}

char* cut(std::size_t bytes) {
  make_arena();
  static char* next = arena + arena_dynamic_bytes;
  const std::size_t whole = (bytes + alignment - 1) / alignment * alignment;
  if (whole > static_cast<std::size_t>(arena + arena_bytes - next) - 2 * guard_bytes) return nullptr;
  char* memory = next + guard_bytes;
  next = memory + whole + guard_bytes;
  std::memset(memory - guard_bytes, guard_byte, guard_bytes);
  std::memset(memory + bytes, guard_byte, static_cast<std::size_t>(next - memory) - bytes);
  return memory;
}

bool intact(const char* from, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i)
    if (static_cast<unsigned char>(from[i]) != guard_byte) return false;
  return true;
}
#endif

}  // namespace

void* allocate_device(std::size_t bytes, std::size_t limit) {
  if (bytes > limit || in_use > limit - bytes) return nullptr;
#if defined(KD_SIMT_ASAN)
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, bytes) != 0) return nullptr;
#else
  void* memory = cut(bytes);
  if (memory == nullptr) return nullptr;
#endif
  std::memset(memory, poison, bytes);
  live[number(memory)] = {number(memory), bytes};
  watch_allocation(memory, bytes, true);
  in_use += bytes;
  return memory;
}

bool free_device(void* memory) {
  const auto found = live.find(number(memory));
  if (found == live.end()) return false;
  const std::size_t bytes = found->second.size;
  in_use -= bytes;
  live.erase(found);
  watch_allocation(memory, bytes, false);
#if defined(KD_SIMT_ASAN)
  std::free(memory);
#else
  // Whole pages go back to the system; what is left is poisoned.
  const std::uintptr_t page = 4096, first = (number(memory) + page - 1) / page * page;
  const std::uintptr_t last = (number(memory) + bytes) / page * page;
  if (bytes < 65536)
    std::memset(memory, poison, bytes);
  else
    madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
#endif
  return true;
}

std::size_t device_bytes_in_use() { return in_use; }
const allocation* find_device(const void* address) { return find(live, address); }

bool on_device(const void* address, std::size_t bytes) {
  const allocation* a = find_device(address);
  return a != nullptr && bytes <= a->begin + a->size - number(address);
}

void check_guards([[maybe_unused]] const std::string& name) {
#if !defined(KD_SIMT_ASAN)
  for (const auto& [begin, a] : live) {
    char* memory = reinterpret_cast<char*>(begin);
    const std::size_t after = (a.size + alignment - 1) / alignment * alignment - a.size + guard_bytes;
    const bool before_intact = intact(memory - guard_bytes, guard_bytes);
    if (before_intact && intact(memory + a.size, after)) continue;
    std::memset(memory - guard_bytes, guard_byte, guard_bytes);
    std::memset(memory + a.size, guard_byte, after);
    throw error(fault::out_of_bounds, "kernel " + name + " wrote " + (before_intact ? "past the end" : "in front") +
                                          " of a device buffer of " + std::to_string(a.size) + " bytes");
  }
#endif
}

void add_pinned(void* memory, std::size_t bytes) { pinned[number(memory)] = {number(memory), bytes}; }
bool remove_pinned(void* memory) { return pinned.erase(number(memory)) != 0; }
bool is_pinned(const void* memory) { return find(pinned, memory) != nullptr; }

segment static_segment() {
  segment found;
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* out) {
        for (int i = 0; i < info->dlpi_phnum; ++i)
          if (info->dlpi_phdr[i].p_type == PT_TLS && info->dlpi_tls_data != nullptr)
            *static_cast<segment*>(out) = {static_cast<char*>(info->dlpi_tls_data), info->dlpi_phdr[i].p_memsz};
        return 1;  // the executable comes first
      },
      &found);
  return found;
}

shared_memory::shared_memory(std::size_t dynamic_bytes) : dynamic_bytes_(dynamic_bytes) {
#if defined(KD_SIMT_ASAN)
  void* memory = nullptr;
  if (dynamic_bytes > 0 && posix_memalign(&memory, 16, dynamic_bytes) != 0) throw std::bad_alloc();
  dynamic_ = static_cast<char*>(memory);
#else
  make_arena();
  dynamic_ = arena + dynamic_offset;
  const segment s = static_segment();
  segment_ = s.begin;
  segment_bytes_ = s.size;
  saved_ = static_cast<char*>(std::malloc(segment_bytes_ + 1));
  std::memcpy(saved_, segment_, segment_bytes_);
#endif
  dynamic_now = dynamic_;
}

shared_memory::~shared_memory() {
#if defined(KD_SIMT_ASAN)
  std::free(dynamic_);
#else
  std::memcpy(segment_, saved_, segment_bytes_);
  std::free(saved_);
#endif
  dynamic_now = nullptr;
}

void shared_memory::poison_for_block() {
  if (dynamic_bytes_ > 0) std::memset(dynamic_, poison, dynamic_bytes_);
#if !defined(KD_SIMT_ASAN)
  std::memset(dynamic_ + dynamic_bytes_, guard_byte, guard_bytes);
  std::memset(dynamic_ - guard_bytes, guard_byte, guard_bytes);
  std::memset(segment_, poison, segment_bytes_);
#endif
}

void shared_memory::check_after_block([[maybe_unused]] const std::string& block) {
#if !defined(KD_SIMT_ASAN)
  const bool before_intact = intact(dynamic_ - guard_bytes, guard_bytes);
  if (before_intact && intact(dynamic_ + dynamic_bytes_, guard_bytes)) return;
  throw_findings();  // those know the thread
  throw error(fault::out_of_bounds, block + " wrote " + (before_intact ? "past the end" : "in front") + " of its " +
                                        std::to_string(dynamic_bytes_) + " bytes of dynamic shared memory");
#endif
}

void* dynamic_shared() { return dynamic_now; }

}  // namespace simt
