/// One block of threads while it runs. Internal to the emulator.
#pragma once

#include <array>
#include <cstdint>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "intrinsics.hpp"
#include "simt.hpp"

namespace simt {

inline constexpr unsigned lanes_per_warp = 32;
inline constexpr unsigned most_threads = 1024;
inline constexpr unsigned most_warps = most_threads / lanes_per_warp;

struct strand;

enum class thread_state : std::uint8_t { fresh, ready, at_block_meeting, at_warp_meeting, ended };

struct thread {
  strand* on = nullptr;  // the fiber that holds it while it waits
  thread_state state = thread_state::fresh;
  unsigned index = 0;
  uint3 coordinates{};
  std::uint64_t value = 0;  // what it brought to a meeting, then what it takes away
  unsigned source = 0;      // the lane whose value it wants
  place where{nullptr, 0};  // the meeting that it waits at
};

/// Lanes of a warp that wait for one another.
struct lane_meeting {
  meeting kind;
  unsigned mask;
  place where;
  unsigned arrived;
};

struct warp {
  unsigned existing = 0, ended = 0, at_block_meeting = 0;  // lanes
  unsigned meetings = 0;
  std::array<lane_meeting, lanes_per_warp> meeting{};
};

struct block_run {
  const launch_shape* shape = nullptr;
  const std::function<void()>* body = nullptr;
  unsigned threads = 0, alive = 0;
  std::array<thread, most_threads> thread_at{};
  std::array<warp, most_warps> warp_at{};

  // The threads that may go on, in no order.
  std::array<std::uint16_t, most_threads> ready{};
  unsigned ready_count = 0;

  // The block's meeting.
  meeting kind = meeting::none;
  place where{nullptr, 0};
  unsigned arrived = 0;
  int count = 0;
  int result = 0;

  bool aborting = false;
  std::exception_ptr failure;
};

/// The block that runs, and the thread of it; null outside of kernels.
extern block_run run;
extern thread* current;

/// "kernel NAME, block (0,0,0), thread (3,0,0)".
std::string who(unsigned thread_index);
std::string at(place where);
[[noreturn]] void fail(fault kind, const std::string& what, place where);

/// Runs all threads of run.shape's block to their end; throws the first error.
void run_threads();
/// The current thread waits until it is made ready again.
void wait_turn();
void make_ready(thread& t);
/// The rules of meetings when a thread ends.
void leave_block(thread& t);

}  // namespace simt
