// The emulator must catch every broken kernel in the build that can, and pass the same kernels without the defect.
#include <cmath>
#include <cstdio>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "broken_kernels.cuh"
#include "kd/cuda/buffer.hpp"
#include "kd/cuda/launch.hpp"
#include "support/catch.hpp"

#if defined(KD_SIMT_ASAN)
#include <unistd.h>
#endif

namespace {

using namespace kd_test;
using simt::fault;

#if defined(KD_SIMT_RACE)
constexpr bool race_build = true;
#else
constexpr bool race_build = false;
#endif
#if defined(KD_SIMT_ASAN)
constexpr bool asan_build = true;
#else
constexpr bool asan_build = false;
#endif

/// What a launch over one buffer of floats came to: the values after it, and the error if there was one.
struct outcome {
  std::vector<float> values;
  std::optional<simt::error> error;

  bool is(fault kind) const { return error.has_value() && error->kind == kind; }
  bool says(const std::string& text) const { return places(text) > 0; }
  /// How often the message says it.
  std::size_t places(const std::string& text) const {
    if (!error.has_value()) return 0;
    const std::string message = error->what();
    std::size_t count = 0;
    for (auto found = message.find(text); found != std::string::npos; found = message.find(text, found + 1)) ++count;
    return count;
  }
};

template <class Kernel, class... More>
outcome run(Kernel kernel, unsigned blocks, unsigned threads, std::size_t shared_bytes, std::vector<float> values,
            More... more) {
  const kd::cuda::stream s;
  kd::cuda::buffer<float> x(values.size());
  kd::cuda::upload(s, values.data(), values.size(), x.data());
  outcome result;
  try {
    kd::cuda::launch(s, "broken", blocks, threads, shared_bytes, kernel, x.data(), more...);
    kd::cuda::download(s, x.data(), values.size(), values.data());
  } catch (const simt::error& e) {
    result.error.emplace(e);
  }
  result.values = values;
  return result;
}

std::vector<float> ascending(std::size_t n, float first = 1) {
  std::vector<float> values(n);
  std::iota(values.begin(), values.end(), first);
  return values;
}

outcome run_sum(bool broken) {
  const kd::cuda::stream s;
  const auto x = ascending(512);
  kd::cuda::buffer<float> from(512);
  kd::cuda::upload(s, x.data(), 512, from.data());
  outcome result;
  kd::cuda::buffer<float> to(2);
  result.values.resize(2);
  try {
    kd::cuda::launch(s, "sum_without_barrier", 2, 256, 0,
                     broken ? sum_without_barrier<true> : sum_without_barrier<false>, from.data(), to.data());
    kd::cuda::download(s, to.data(), 2, result.values.data());
  } catch (const simt::error& e) {
    result.error.emplace(e);
  }
  return result;
}

void read_past_end(bool broken) {
  const kd::cuda::stream s;
  kd::cuda::buffer<float> x(37), out(37);
  kd::cuda::fill_zero(s, x.data(), 37);
  kd::cuda::launch(s, "broken", 1, 64, 0, broken ? past_device_end<true> : past_device_end<false>, x.data(), out.data(),
                   37u);
  s.synchronize();
}

}  // namespace

TEST_CASE("emulator: a missing barrier in a reduction", "[simt][broken]") {
  const outcome right = run_sum(false), wrong = run_sum(true);
  CHECK_FALSE(right.error.has_value());
  CHECK(right.values == std::vector<float>{32896, 98432});
  if (race_build) {
    REQUIRE(wrong.is(fault::race));
    CHECK(wrong.error->count == 64);                  // 32 in each of two blocks
    CHECK(wrong.places("broken_kernels.cuh:") >= 2);  // whichever of the two accesses came first
    CHECK(wrong.says("kernel sum_without_barrier, block ("));
  } else {
    CHECK(wrong.values != right.values);
  }
}

TEST_CASE("emulator: no barrier at all leaves what the block was poisoned with", "[simt][broken]") {
  const outcome right = run(mirror_without_barrier<false>, 1, 64, 0, ascending(64));
  CHECK_FALSE(right.error.has_value());
  CHECK(right.values.front() == 64);
  const outcome wrong = run(mirror_without_barrier<true>, 1, 64, 0, ascending(64));
  if (race_build) {
    CHECK(wrong.error.has_value());
    CHECK(wrong.says("race: "));
    CHECK(wrong.says("read of shared memory that no thread of the block has written"));
  } else if (!asan_build) {
    bool any_nan = false;
    for (const float x : wrong.values) any_nan = any_nan || std::isnan(x);
    CHECK(any_nan);
  } else {
    CHECK(wrong.values != right.values);
  }
}

TEST_CASE("emulator: a missing barrier between reads and the next writes", "[simt][broken]") {
  const outcome right = run(reuse_without_barrier<false>, 1, 64, 0, ascending(64));
  CHECK_FALSE(right.error.has_value());
  CHECK(right.values.front() == 64);
  const outcome wrong = run(reuse_without_barrier<true>, 1, 64, 0, ascending(64));
  if (race_build)
    CHECK(wrong.is(fault::race));
  else
    CHECK(wrong.values != right.values);
}

TEST_CASE("emulator: a barrier that not all threads reach", "[simt][broken]") {
  CHECK_FALSE(run(early_return<false>, 1, 64, 0, ascending(64), 40u).error.has_value());
  const outcome wrong = run(early_return<true>, 1, 64, 0, ascending(64), 40u);
  REQUIRE(wrong.is(fault::barrier));
  CHECK(wrong.says("kernel broken, block (0,0,0), thread ("));
  CHECK(wrong.says("broken_kernels.cuh:"));
  CHECK(wrong.says("KD_SIMT_SEED="));
}

TEST_CASE("emulator: threads that wait at different barriers", "[simt][broken]") {
  CHECK_FALSE(run(two_barriers<false>, 1, 64, 0, ascending(64)).error.has_value());
  const outcome wrong = run(two_barriers<true>, 1, 64, 0, ascending(64));
  REQUIRE(wrong.is(fault::barrier));
  CHECK(wrong.places("broken_kernels.cuh:") == 2);
}

TEST_CASE("emulator: a race between blocks", "[simt][broken]") {
  for (const bool broken : {false, true}) {
    const kd::cuda::stream s;
    kd::cuda::buffer<unsigned> count(1);
    kd::cuda::fill_zero(s, count.data(), 1);
    kd::cuda::launch(s, "count_blocks", 8, 32, 0, broken ? count_blocks<true> : count_blocks<false>, count.data());
    unsigned counted = 0;
    if (broken && race_build) {
      CHECK_THROWS_AS(s.synchronize(), simt::error);
      CHECK_NOTHROW(s.synchronize());
    } else {
      kd::cuda::download(s, count.data(), 1, &counted);
      CHECK(counted == 8);
    }
  }
}

TEST_CASE("emulator: a block that relies on another one", "[simt][broken]") {
  const outcome right = run(chain_of_blocks<false>, 40, 32, 0, std::vector<float>(40, 0.0f));
  CHECK_FALSE(right.error.has_value());
  CHECK(right.values == ascending(40, 0));
  const outcome wrong = run(chain_of_blocks<true>, 40, 32, 0, std::vector<float>(40, 0.0f));
  if (race_build)
    CHECK(wrong.is(fault::race));
  else
    CHECK(wrong.values != right.values);
}

TEST_CASE("emulator: bytes of one word are told apart", "[simt][broken]") {
  for (const bool broken : {false, true}) {
    const kd::cuda::stream s;
    kd::cuda::buffer<unsigned char> bytes(16);
    kd::cuda::launch(s, "neighbouring_bytes", 16, 1, 0, broken ? neighbouring_bytes<true> : neighbouring_bytes<false>,
                     bytes.data());
    if (broken && race_build)
      CHECK_THROWS_AS(s.synchronize(), simt::error);
    else
      CHECK_NOTHROW(s.synchronize());
  }
}

TEST_CASE("emulator: shared memory that is read before it is written", "[simt][broken]") {
  CHECK_FALSE(run(uninitialised_shared<false>, 1, 64, 0, ascending(64)).error.has_value());
  const outcome wrong = run(uninitialised_shared<true>, 1, 64, 0, ascending(64));
  if (race_build) {
    REQUIRE(wrong.is(fault::uninitialised_shared));
    CHECK(wrong.error->count == 1);
    CHECK(wrong.says("thread (46,0,0)"));
  } else if (!asan_build) {
    CHECK(std::isnan(wrong.values[46]));
  }
}

TEST_CASE("emulator: a shuffle from an inactive lane", "[simt][broken]") {
  CHECK_FALSE(run(inactive_lane<false>, 1, 32, 0, ascending(32)).error.has_value());
  const outcome wrong = run(inactive_lane<true>, 1, 32, 0, ascending(32));
  REQUIRE(wrong.is(fault::lanes));
  CHECK(wrong.says("thread (0,0,0)"));
  CHECK(wrong.says("reads lane 16"));
}

TEST_CASE("emulator: a mask that names lanes which do not come", "[simt][broken]") {
  CHECK_FALSE(run(absent_lanes<false>, 1, 32, 0, ascending(32)).error.has_value());
  CHECK(run(absent_lanes<true>, 1, 32, 0, ascending(32)).is(fault::lanes));
  CHECK(run(absent_lanes<true>, 1, 16, 0, ascending(32)).is(fault::lanes));
  CHECK_FALSE(run(circle_of_lanes<false>, 1, 3, 0, ascending(3)).error.has_value());
  const outcome wrong = run(circle_of_lanes<true>, 1, 3, 0, ascending(3));
  REQUIRE(wrong.is(fault::deadlock));
  CHECK(wrong.says("every thread that has not ended waits"));
}

TEST_CASE("emulator: a missing __syncwarp", "[simt][broken]") {
  const outcome right = run(neighbour_without_syncwarp<false>, 1, 64, 0, ascending(64));
  const outcome wrong = run(neighbour_without_syncwarp<true>, 1, 64, 0, ascending(64));
  CHECK_FALSE(right.error.has_value());
  if (race_build)
    CHECK(wrong.error.has_value());
  else
    CHECK_FALSE(wrong.values == right.values);
  CHECK_FALSE(run(crosses_halves<false>, 1, 32, 0, ascending(32)).error.has_value());
  if (race_build) CHECK(run(crosses_halves<true>, 1, 32, 0, ascending(32)).error.has_value());
}

TEST_CASE("emulator: aligned vectors", "[simt][broken]") {
  const outcome right = run(misaligned_vector<false>, 1, 32, 0, ascending(132));
  CHECK_FALSE(right.error.has_value());
  CHECK(right.values[31] == 125 + 126 + 127 + 128);
}

#if !defined(KD_SIMT_ASAN)
TEST_CASE("emulator: accesses out of bounds", "[simt][broken]") {
  CHECK_FALSE(run(write_past_device_end<false>, 1, 64, 0, ascending(37), 37u).error.has_value());
  const outcome device = run(write_past_device_end<true>, 1, 64, 0, ascending(37), 37u);
  REQUIRE(device.is(fault::out_of_bounds));
  CHECK(device.says("148 bytes"));
  CHECK_FALSE(run(past_dynamic_end<false>, 1, 64, 37 * sizeof(float), ascending(37), 37u).error.has_value());
  const outcome dynamic = run(past_dynamic_end<true>, 1, 64, 37 * sizeof(float), ascending(37), 37u);
  REQUIRE(dynamic.is(fault::out_of_bounds));
  CHECK(dynamic.says("148 bytes of dynamic shared memory"));
  CHECK_FALSE(run(past_static_end<false>, 1, 64, 0, ascending(37), 37u).error.has_value());
  if (!race_build) return;
  CHECK(device.says("thread (37,0,0)"));
  CHECK(dynamic.says("thread (37,0,0)"));
  CHECK(run(past_static_end<true>, 1, 64, 0, ascending(37), 37u).is(fault::out_of_bounds));
}

TEST_CASE("emulator: a read past the end of a device buffer", "[simt][broken]") {
  CHECK_NOTHROW(read_past_end(false));
  if (race_build) CHECK_THROWS_AS(read_past_end(true), simt::error);
}
#else
// AddressSanitizer ends the program: each case is run by a process of its own.
TEST_CASE("death: device read", "[.death]") { read_past_end(true); }
TEST_CASE("death: device write", "[.death]") { run(write_past_device_end<true>, 1, 64, 0, ascending(37), 37u); }
TEST_CASE("death: dynamic shared", "[.death]") {
  run(past_dynamic_end<true>, 1, 64, 37 * sizeof(float), ascending(37), 37u);
}
TEST_CASE("death: vector load", "[.death]") { run(misaligned_vector<true>, 1, 32, 0, ascending(132)); }
TEST_CASE("death: static shared", "[.death]") { run(past_static_end<true>, 1, 64, 0, ascending(37), 37u); }

TEST_CASE("emulator: accesses out of bounds end the program and name the thread", "[simt][broken]") {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
  REQUIRE(length > 0);
  const std::string program(path, static_cast<std::size_t>(length));
  for (const std::string name : {"device read", "device write", "dynamic shared", "static shared", "vector load"}) {
#if defined(__clang__)
    if (name == "vector load") continue;  // clang's UBSan does not look at copies of structures
#endif
    CAPTURE(name);
    std::FILE* output = popen(("'" + program + "' 'death: " + name + "' 2>&1").c_str(), "r");
    REQUIRE(output != nullptr);
    std::string text;
    for (char part[512]; std::fgets(part, sizeof part, output) != nullptr;) text += part;
    CHECK(pclose(output) != 0);
    // UBSan sees the index of an array of known size first.
    const auto says = [&](const char* part) { return text.find(part) != std::string::npos; };
    INFO(text);
    CHECK((says("ERROR: AddressSanitizer") || says("out of bounds") || says("misaligned address")));
    CHECK(says(name == "vector load" ? "simt: kernel broken, block (0,0,0), thread ("
                                     : "simt: kernel broken, block (0,0,0), thread (3"));
  }
}
#endif
