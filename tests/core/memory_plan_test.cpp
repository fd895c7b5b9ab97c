#include "kd/core/memory_plan.hpp"

#include "kd/core/random.hpp"
#include "support/catch.hpp"

TEST_CASE("memory_plan: buffers alive together never overlap", "[core][memory_plan]") {
  std::uint32_t draw = 0;
  const auto below = [&](std::uint32_t bound) {
    return kd::uniform_below(kd::random_at(11, kd::random_stream::synthetic_data, draw++)[0], bound);
  };
  for (int round = 0; round < 50; ++round) {
    std::array<kd::lifetime, 40> buffers{};
    std::size_t sum = 0;
    for (kd::lifetime& b : buffers) {
      b.size = below(20);
      b.first = below(30);
      b.last = b.first + below(10);
      sum += b.size;
    }
    const auto plan = kd::place(buffers);
    for (std::size_t i = 0; i < buffers.size(); ++i) {
      CHECK(plan.offset[i] + buffers[i].size <= plan.size);
      for (std::size_t j = 0; j < i; ++j) {
        if (!buffers[i].overlaps(buffers[j]) || buffers[i].size == 0 || buffers[j].size == 0) continue;
        const bool apart =
            plan.offset[i] + buffers[i].size <= plan.offset[j] || plan.offset[j] + buffers[j].size <= plan.offset[i];
        CHECK(apart);
      }
    }
    // Something is reused: 40 buffers of which only some live together.
    CHECK(plan.size < sum);
  }
}

TEST_CASE("memory_plan: buffers that never meet share their place", "[core][memory_plan]") {
  constexpr auto plan = kd::place(std::array<kd::lifetime, 3>{{{8, 0, 1}, {8, 2, 3}, {4, 1, 2}}});
  static_assert(plan.offset[0] == plan.offset[1]);
  static_assert(plan.size == 12);
  CHECK(plan.offset[2] == 8);
}
