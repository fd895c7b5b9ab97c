// One fiber per thread: a thread runs directly until it must wait, then the next one is drawn at random.
#define KD_SIMT_RUNTIME
#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <utility>

#include "block.hpp"
#include "random_order.hpp"
#include "sanitizer.hpp"
#include "watch.hpp"

uint3 threadIdx{};
uint3 blockIdx{};
dim3 blockDim;
dim3 gridDim;

namespace simt {

namespace {

// AddressSanitizer's frames are several times larger.
#if defined(KD_SIMT_ASAN)
constexpr std::size_t stack_bytes = 256 * 1024;
#else
constexpr std::size_t stack_bytes = 64 * 1024;
#endif

// What unwinds a waiting thread of a block that failed.
struct abandoned {};

}  // namespace

/// A fiber with its stack. It serves one thread after another, over all blocks, and is never destroyed.
struct strand {
  boost::context::fiber fiber;
  stack_of_fiber stack;
  thread* assigned = nullptr;
};

block_run run;
thread* current = nullptr;

namespace {

strand host;                 // the stack that called run_threads
strand* active = &host;      // the strand that runs
strand* previous = nullptr;  // the strand that switched to it
// Those without a thread, and all: never destroyed, as a fiber that waits cannot be.
auto& free_strands = *new std::vector<strand*>;
auto& all_strands = *new std::vector<strand*>;

void arrive(boost::context::fiber from) { previous->fiber = std::move(from); }

void switch_to(strand& next) {
  strand& self = *active;
  previous = &self;
  active = &next;
  before_switch(self.stack, next.stack);
  arrive(std::move(next.fiber).resume());
  after_switch(self.stack, previous->stack);
}

// Draws the next thread among those that may go on; null when there is none.
thread* draw() {
  if (run.ready_count == 0) return nullptr;
  const unsigned place = order.below(run.ready_count);
  thread& t = run.thread_at[run.ready[place]];
  run.ready[place] = run.ready[--run.ready_count];
  return &t;
}

void become(thread& t) {
  current = &t;
  threadIdx = t.coordinates;
  watch_thread(t.index);
}

// A failed block is left in an orderly way: waiting threads are unwound, the others never start.
void abort_block(std::exception_ptr why) {
  if (!run.failure) run.failure = std::move(why);
  if (run.aborting) return;
  run.aborting = true;
  run.ready_count = 0;
  for (unsigned i = 0; i < run.threads; ++i) {
    thread& t = run.thread_at[i];
    if (t.on != nullptr && &t != current) run.ready[run.ready_count++] = static_cast<std::uint16_t>(i);
  }
}

void run_one(thread& t) {
  become(t);
  try {
    (*run.body)();
    leave_block(t);
  } catch (const abandoned&) {
  } catch (...) {
    abort_block(std::current_exception());
  }
  t.state = thread_state::ended;
}

std::string waiting_threads() {
  std::string out;
  unsigned shown = 0;
  for (unsigned i = 0; i < run.threads && shown < 4; ++i) {
    const thread& t = run.thread_at[i];
    if (t.state != thread_state::at_block_meeting && t.state != thread_state::at_warp_meeting) continue;
    out += (shown++ == 0 ? "thread " : ", thread ") + std::to_string(i) + " waits " + at(t.where);
  }
  return out;
}

void serve();

strand& take_strand() {
  if (free_strands.empty()) {
    strand* made = new strand;
    boost::context::protected_fixedsize_stack allocator(stack_bytes);
    const boost::context::stack_context stack = allocator.allocate();
    made->stack.bottom = static_cast<char*>(stack.sp) - stack.size;
    made->stack.size = stack.size;
    // Stacks that all begin at one offset within a page would share the same few lines of the first-level cache.
    static unsigned colour = 0;
    const std::size_t offset = colour++ % 16 * 256;
    made->fiber = boost::context::fiber(
        std::allocator_arg,
        boost::context::preallocated(static_cast<char*>(stack.sp) - offset, stack.size - offset, stack), allocator,
        [](boost::context::fiber&& from) {
          after_first_switch(active->stack, previous->stack);
          arrive(std::move(from));
          serve();
          return boost::context::fiber{};
        });
    all_strands.push_back(made);
    free_strands.push_back(made);
  }
  strand& s = *free_strands.back();
  free_strands.pop_back();
  return s;
}

// Goes on with t from the strand that runs, which is left for others when t has one of its own.
void hand_over(thread& t) {
  if (t.on != nullptr) {
    switch_to(*t.on);
  } else {
    strand& s = take_strand();
    s.assigned = &t;
    switch_to(s);
  }
}

// The life of a strand: run its thread to the end, then fresh ones as they are drawn, then rest.
void serve() {
  for (;;) {
    strand& self = *active;
    thread* t = std::exchange(self.assigned, nullptr);
    while (t != nullptr) {
      run_one(*t);
      t->on = nullptr;
      t = draw();
      if (t == nullptr || t->on != nullptr) break;
    }
    free_strands.push_back(&self);
    switch_to(t != nullptr ? *t->on : host);
  }
}

}  // namespace

void make_ready(thread& t) {
  t.state = thread_state::ready;
  run.ready[run.ready_count++] = static_cast<std::uint16_t>(t.index);
}

void wait_turn() {
  thread& self = *current;
  thread* next = draw();
  if (next == nullptr)
    fail(fault::deadlock, "every thread that has not ended waits (" + waiting_threads() + ")", self.where);
  if (next != &self) {
    self.on = active;
    hand_over(*next);
    become(self);
    self.on = nullptr;
  }
  if (run.aborting) throw abandoned{};
}

void run_threads() {
  run.alive = run.threads;
  run.ready_count = run.threads;
  run.kind = meeting::none;
  run.arrived = 0;
  run.count = 0;
  run.aborting = false;
  run.failure = nullptr;
  const dim3 block = run.shape->block;
  uint3 coordinates{0, 0, 0};
  for (unsigned i = 0; i < run.threads; ++i) {
    thread& t = run.thread_at[i];
    t.state = thread_state::fresh;
    t.index = i;
    t.coordinates = coordinates;
    t.on = nullptr;
    run.ready[i] = static_cast<std::uint16_t>(i);
    if (++coordinates.x == block.x) coordinates.x = 0, ++coordinates.y;
    if (coordinates.y == block.y) coordinates.y = 0, ++coordinates.z;
  }
  for (unsigned w = 0; w * lanes_per_warp < run.threads; ++w) {
    const unsigned left = run.threads - w * lanes_per_warp;
    run.warp_at[w].existing = left >= lanes_per_warp ? 0xffffffffu : (1u << left) - 1;
    run.warp_at[w].ended = run.warp_at[w].at_block_meeting = run.warp_at[w].meetings = 0;
  }
  hand_over(*draw());
  // A thread that waits when nobody is left to wake it has failed in wait_turn, or the last one to end left it.
  if (!run.failure && run.alive != 0) {
    thread* waiting = nullptr;
    for (unsigned i = 0; i < run.threads && waiting == nullptr; ++i)
      if (run.thread_at[i].on != nullptr) waiting = &run.thread_at[i];
    current = waiting;
    const std::string text = "every thread that has not ended waits (" + waiting_threads() + ")";
    try {
      fail(fault::deadlock, text, waiting->where);
    } catch (...) {
      current = nullptr;
      abort_block(std::current_exception());
    }
    hand_over(*draw());
  }
  current = nullptr;
  if (run.failure) std::rethrow_exception(std::exchange(run.failure, nullptr));
}

}  // namespace simt
