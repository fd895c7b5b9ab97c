/// The emulator as seen by tests and by the stand-in of the CUDA runtime.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

#include "vector_types.hpp"

namespace simt {

enum class fault {
  launch,                ///< a grid, a block or an amount of shared memory that no GPU takes
  barrier,               ///< a barrier that not all threads reach
  lanes,                 ///< a warp operation whose mask names a lane that is elsewhere, or a shuffle from outside it
  deadlock,              ///< every thread waits
  out_of_bounds,         ///< an access outside of every buffer
  uninitialised_shared,  ///< a read of shared memory that this block has not written
  race,                  ///< two accesses to one address, one of them writing, that nothing orders
  trap                   ///< __trap()
};

/// What a kernel did wrong; the message names kernel, block, thread and places.
struct error : std::runtime_error {
  error(fault kind_, const std::string& message, std::size_t count_ = 1)
      : std::runtime_error(message), kind(kind_), count(count_) {}
  fault kind;
  std::size_t count;  ///< pairs of accesses that race, or single accesses that are wrong
};

/// Seed of every random order: KD_SIMT_SEED, else drawn; printed with every error.
std::uint64_t seed();
/// Starts the random orders again from this seed.
void set_seed(std::uint64_t seed);

struct launch_shape {
  std::string name;
  dim3 grid, block;
  std::size_t shared_bytes;
};
/// Throws error(fault::launch) for a shape that no GPU takes.
void check_shape(const launch_shape& shape);
/// Runs a kernel now: `body` once per thread.
void run_kernel(const launch_shape& shape, const std::function<void()>& body);
/// Whether a kernel runs at this moment.
bool in_kernel();

}  // namespace simt
