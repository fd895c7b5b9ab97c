// Barriers, shuffles and votes: who waits for whom, and what they get.
#define KD_SIMT_RUNTIME
#include <algorithm>
#include <bit>

#include "block.hpp"
#include "watch.hpp"

namespace simt {

namespace {

const char* name_of(meeting kind) {
  static constexpr const char* names[] = {
      "__syncthreads",     "__syncthreads_count", "__syncthreads_and", "__syncthreads_or",  "__syncwarp",
      "__shfl_sync",       "__shfl_up_sync",      "__shfl_down_sync",  "__shfl_xor_sync",   "__ballot_sync",
      "__all_sync",        "__any_sync",          "__match_any_sync",  "__reduce_add_sync", "__reduce_min_sync",
      "__reduce_max_sync", "__reduce_and_sync",   "__reduce_or_sync",  "__reduce_xor_sync", "no barrier"};
  return names[static_cast<unsigned>(kind)];
}

bool same_place(place a, place b) { return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0); }

std::string hex(unsigned mask) {
  char digits[16];
  std::snprintf(digits, sizeof digits, "0x%08x", mask);
  return digits;
}

std::string lane_name(const thread& self, unsigned lane) {
  return "lane " + std::to_string(lane) + " (thread " +
         std::to_string(self.index / lanes_per_warp * lanes_per_warp + lane) + ")";
}

unsigned first_lane(unsigned mask) { return static_cast<unsigned>(std::countr_zero(mask)); }

// What each lane takes away. `group` has arrived as a whole.
void exchange(thread* lanes, const lane_meeting& group) {
  std::uint64_t brought[lanes_per_warp];
  unsigned votes = 0;
  for (unsigned left = group.mask; left != 0; left &= left - 1) {
    const unsigned lane = first_lane(left);
    brought[lane] = lanes[lane].value;
    votes |= static_cast<unsigned>(brought[lane] != 0) << lane;
  }
  std::uint64_t common = 0;
  const auto fold = [&](auto join) {
    unsigned left = group.mask;
    unsigned total = static_cast<unsigned>(brought[first_lane(left)]);
    for (left &= left - 1; left != 0; left &= left - 1)
      total = join(total, static_cast<unsigned>(brought[first_lane(left)]));
    common = total;
  };
  switch (group.kind) {
    case meeting::shfl:
    case meeting::shfl_up:
    case meeting::shfl_down:
    case meeting::shfl_xor:
      for (unsigned left = group.mask; left != 0; left &= left - 1) {
        thread& t = lanes[first_lane(left)];
        // From a lane outside of the mask the thread takes what it brought: it reports that itself.
        if (group.mask >> t.source & 1u) t.value = brought[t.source];
      }
      return;
    case meeting::match_any:
      for (unsigned left = group.mask; left != 0; left &= left - 1) {
        unsigned equal = 0;
        for (unsigned other = group.mask; other != 0; other &= other - 1)
          equal |= static_cast<unsigned>(brought[first_lane(other)] == brought[first_lane(left)]) << first_lane(other);
        lanes[first_lane(left)].value = equal;
      }
      return;
    case meeting::ballot:
      common = votes;
      break;
    case meeting::all:
      common = votes == group.mask;
      break;
    case meeting::any:
      common = votes != 0;
      break;
    case meeting::reduce_add:
      fold([](unsigned a, unsigned b) { return a + b; });
      break;
    case meeting::reduce_min:
      fold([](unsigned a, unsigned b) { return std::min(a, b); });
      break;
    case meeting::reduce_max:
      fold([](unsigned a, unsigned b) { return std::max(a, b); });
      break;
    case meeting::reduce_and:
      fold([](unsigned a, unsigned b) { return a & b; });
      break;
    case meeting::reduce_or:
      fold([](unsigned a, unsigned b) { return a | b; });
      break;
    case meeting::reduce_xor:
      fold([](unsigned a, unsigned b) { return a ^ b; });
      break;
    default:
      break;
  }
  for (unsigned left = group.mask; left != 0; left &= left - 1) lanes[first_lane(left)].value = common;
}

// A mask must name existing lanes that can still come, the caller among them.
void check_mask(const thread& self, const warp& w, meeting kind, unsigned mask, place where) {
  const unsigned lane = self.index % lanes_per_warp;
  const std::string call = std::string(name_of(kind)) + " with mask " + hex(mask);
  if ((mask >> lane & 1u) == 0)
    fail(fault::lanes, call + " does not name the calling lane " + std::to_string(lane), where);
  if ((mask & ~w.existing) != 0)
    fail(fault::lanes,
         call + " names " + lane_name(self, first_lane(mask & ~w.existing)) + ", which the block does not have", where);
  if ((mask & w.ended) != 0)
    fail(fault::lanes, call + " names " + lane_name(self, first_lane(mask & w.ended)) + ", which has ended", where);
  if ((mask & w.at_block_meeting) != 0)
    fail(fault::lanes,
         call + " names " + lane_name(self, first_lane(mask & w.at_block_meeting)) + ", which waits in " +
             name_of(run.kind) + " " + at(run.where),
         where);
  for (unsigned i = 0; i < w.meetings; ++i) {
    const lane_meeting& other = w.meeting[i];
    if ((other.arrived & mask) != 0 && (other.mask >> lane & 1u) != 0)
      fail(fault::lanes,
           call + " meets " + lane_name(self, first_lane(other.arrived & mask)) + " in " + name_of(other.kind) +
               " with mask " + hex(other.mask) + " " + at(other.where),
           where);
  }
}

// The current thread will not come to the meetings of its warp: an error where one waits for it.
void check_not_awaited(const thread& self, const char* instead, place where) {
  const warp& w = run.warp_at[self.index / lanes_per_warp];
  for (unsigned i = 0; i < w.meetings; ++i) {
    const lane_meeting& group = w.meeting[i];
    if ((group.mask >> self.index % lanes_per_warp & 1u) != 0)
      fail(fault::lanes,
           std::string(instead) + ", while " + lane_name(self, first_lane(group.arrived)) + " waits for it in " +
               name_of(group.kind) + " with mask " + hex(group.mask) + " " + at(group.where),
           where);
  }
}

}  // namespace

int meet_block(meeting kind, int predicate, place where) {
  if (current == nullptr) throw error(fault::barrier, std::string(name_of(kind)) + " outside of a kernel");
  thread& self = *current;
  self.where = where;
  if (run.alive != run.threads)
    fail(fault::barrier,
         std::string(name_of(kind)) + " is not reached by all threads: " + std::to_string(run.threads - run.alive) +
             " of " + std::to_string(run.threads) + " have ended",
         where);
  if (run.arrived != 0 && (run.kind != kind || !same_place(run.where, where)))
    fail(fault::barrier,
         std::string(name_of(kind)) + " while other threads of the block wait in " + name_of(run.kind) + " " +
             at(run.where),
         where);
  check_not_awaited(self, name_of(kind), where);
  if (run.arrived++ == 0) {
    run.kind = kind;
    run.where = where;
    run.count = 0;
  }
  run.count += predicate != 0;
  const unsigned lane = self.index % lanes_per_warp;
  run.warp_at[self.index / lanes_per_warp].at_block_meeting |= 1u << lane;
  self.state = thread_state::at_block_meeting;
  if (run.arrived == run.threads) {
    const int count = run.count, all = static_cast<int>(run.threads);
    run.result = kind == meeting::syncthreads_count ? count
                 : kind == meeting::syncthreads_and ? count == all
                                                    : count != 0;
    run.arrived = 0;
    for (unsigned i = 0; i < run.threads; ++i) make_ready(run.thread_at[i]);
    for (unsigned w = 0; w * lanes_per_warp < run.threads; ++w) run.warp_at[w].at_block_meeting = 0;
    watch_block_meeting();
  }
  wait_turn();
  // The next meeting needs this thread as well, so that the result is still this one's.
  return run.result;
}

std::uint64_t meet_warp(meeting kind, unsigned mask, std::uint64_t value, unsigned source, place where) {
  if (current == nullptr) throw error(fault::lanes, std::string(name_of(kind)) + " outside of a kernel");
  thread& self = *current;
  const unsigned lane = self.index % lanes_per_warp, warp_index = self.index / lanes_per_warp;
  warp& w = run.warp_at[warp_index];
  self.where = where;
  self.value = value;
  self.source = source;
  if (source >= lanes_per_warp || (kind >= meeting::shfl && kind <= meeting::shfl_xor && (mask >> source & 1u) == 0))
    fail(fault::lanes,
         std::string(name_of(kind)) + " with mask " + hex(mask) + " reads " + lane_name(self, source) +
             ", which is inactive: the mask does not name it",
         where);
  unsigned found = 0;
  while (found < w.meetings && !(w.meeting[found].mask == mask && w.meeting[found].kind == kind &&
                                 same_place(w.meeting[found].where, where) && (mask >> lane & 1u) != 0))
    ++found;
  if (found == w.meetings) {
    check_mask(self, w, kind, mask, where);
    w.meeting[w.meetings++] = {kind, mask, where, 0};
  }
  lane_meeting& group = w.meeting[found];
  group.arrived |= 1u << lane;
  self.state = thread_state::at_warp_meeting;
  if (group.arrived == mask) {
    thread* lanes = &run.thread_at[warp_index * lanes_per_warp];
    exchange(lanes, group);
    for (unsigned left = mask; left != 0; left &= left - 1) make_ready(lanes[first_lane(left)]);
    w.meeting[found] = w.meeting[--w.meetings];
    watch_lane_meeting(warp_index, mask);
  }
  wait_turn();
  return self.value;
}

unsigned shuffle_source(meeting kind, unsigned argument, int width, place where) {
  if (current == nullptr) throw error(fault::lanes, std::string(name_of(kind)) + " outside of a kernel");
  if (width < 1 || width > 32 || (width & (width - 1)) != 0)
    fail(fault::lanes,
         std::string(name_of(kind)) + ": the width must be a power of two up to 32, it is " + std::to_string(width),
         where);
  const unsigned lane = current->index % lanes_per_warp, size = static_cast<unsigned>(width);
  const unsigned first = lane / size * size, last = first + size - 1;
  switch (kind) {
    case meeting::shfl:
      return first + argument % size;
    case meeting::shfl_up:
      return argument <= lane - first ? lane - argument : lane;
    case meeting::shfl_down:
      return argument <= last - lane ? lane + argument : lane;
    default:
      return (lane ^ argument) <= last ? lane ^ argument : lane;
  }
}

unsigned active_mask() { return current == nullptr ? 0 : 1u << current->index % lanes_per_warp; }

void leave_block(thread& self) {
  const place end{nullptr, 0};
  if (run.arrived != 0)
    fail(fault::barrier,
         "the thread ends, while " + std::to_string(run.arrived) + " of " + std::to_string(run.threads) +
             " threads wait in " + name_of(run.kind) + " " + at(run.where),
         end);
  check_not_awaited(self, "the thread ends", end);
  run.warp_at[self.index / lanes_per_warp].ended |= 1u << self.index % lanes_per_warp;
  --run.alive;
}

void trap(place where) { fail(fault::trap, "__trap()", where); }

}  // namespace simt
