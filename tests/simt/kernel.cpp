// A launch: the blocks of the grid one after another in random order, and the text of errors.
#define KD_SIMT_RUNTIME
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <utility>

#include "block.hpp"
#include "memory.hpp"
#include "random_order.hpp"
#include "reports.hpp"
#include "watch.hpp"

extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;

namespace simt {

random_order order;

namespace {

std::uint64_t first_seed() {
  if (const char* given = std::getenv("KD_SIMT_SEED"); given != nullptr && *given != '\0')
    return std::strtoull(given, nullptr, 0);
  // Said at once: what fails may be a test of values, which does not know of it.
  const std::uint64_t drawn = std::random_device{}();
  std::fprintf(stderr, "simt: KD_SIMT_SEED=%llu\n", static_cast<unsigned long long>(drawn));
  return drawn;
}

std::uint64_t& seed_now() {
  static std::uint64_t seed = first_seed();
  static const bool started = (order.state = seed, true);
  static_cast<void>(started);
  return seed;
}

std::string triple(uint3 v) {
  return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
}

struct watch_kernel {
  watch_kernel(const void* dynamic, std::size_t bytes) { watch_kernel_begin(dynamic, bytes); }
  ~watch_kernel() { watch_kernel_end(); }
};

std::uint64_t volume(dim3 d) { return std::uint64_t{d.x} * d.y * d.z; }

}  // namespace

std::uint64_t seed() { return seed_now(); }
void set_seed(std::uint64_t seed) { order.state = seed_now() = seed; }
bool in_kernel() { return current != nullptr; }

std::string at(place where) {
  return where.file == nullptr ? "" : "at " + std::string(where.file) + ":" + std::to_string(where.line);
}

std::string who(unsigned thread_index) {
  const unsigned x = blockDim.x, y = blockDim.y;
  return "kernel " + run.shape->name + ", block " + triple(blockIdx) + ", thread " +
         triple({thread_index % x, thread_index / x % y, thread_index / (x * y)});
}

void fail(fault kind, const std::string& what, place where) {
  const std::string place = at(where);
  throw error(kind, who(current != nullptr ? current->index : 0) + (place.empty() ? "" : " " + place) + ": " + what +
                        "; KD_SIMT_SEED=" + std::to_string(seed()));
}

void check_shape(const launch_shape& s) {
  const auto reject = [&](const std::string& rule) {
    throw error(fault::launch, "kernel " + s.name + ": " + rule + "; received grid " + triple(s.grid) + ", block " +
                                   triple(s.block) + ", " + std::to_string(s.shared_bytes) + " bytes of shared memory");
  };
  if (volume(s.grid) == 0 || volume(s.block) == 0) reject("no extent of grid and block may be 0");
  if (s.block.x > 1024 || s.block.y > 1024 || s.block.z > 64 || volume(s.block) > most_threads)
    reject("a block has at most 1024 threads, and (1024,1024,64) in each direction");
  if (s.grid.x > 0x7fffffffu || s.grid.y > 65535 || s.grid.z > 65535)
    reject("a grid has at most (2147483647,65535,65535) blocks in each direction");
  if (s.shared_bytes > 227 * 1024) reject("a block has at most 227 KiB of shared memory");
}

void run_kernel(const launch_shape& shape, const std::function<void()>& body) {
  check_shape(shape);
  seed_now();
  run.shape = &shape;
  run.body = &body;
  run.threads = static_cast<unsigned>(volume(shape.block));
  blockDim = shape.block;
  gridDim = shape.grid;
  std::vector<std::uint64_t> blocks(volume(shape.grid));
  std::iota(blocks.begin(), blocks.end(), std::uint64_t{0});
  shared_memory shared(shape.shared_bytes);
  const report_crashes reporting;
  const watch_kernel watching(dynamic_shared(), shape.shared_bytes);
  for (std::size_t left = blocks.size(); left > 0; --left) {
    const std::uint64_t block = std::exchange(blocks[order.below(static_cast<std::uint32_t>(left))], blocks[left - 1]);
    blockIdx = {static_cast<unsigned>(block % shape.grid.x), static_cast<unsigned>(block / shape.grid.x % shape.grid.y),
                static_cast<unsigned>(block / shape.grid.x / shape.grid.y)};
    shared.poison_for_block();
    watch_block();
    run_threads();
    shared.check_after_block("kernel " + shape.name + ", block " + triple(blockIdx));
  }
  throw_findings();
  check_guards(shape.name);
}

}  // namespace simt
