/// Events, graphs, and the memory of temporaries.
#include "kd/cuda/graph.hpp"

#include <cstddef>
#include <stdexcept>
#include <vector>

#include "kd/cuda/buffer.hpp"
#include "kd/cuda/event.hpp"
#include "kd/cuda/workspace.hpp"
#include "support/catch.hpp"
#include "support/message.hpp"

namespace {

using kd::cuda::buffer;
using kd::cuda::event;
using kd::cuda::graph;
using kd::cuda::stream;
using kd::cuda::workspace;

std::vector<int> host(const stream& s, const buffer<int>& b) {
  std::vector<int> all(b.size());
  kd::cuda::download(s, b.data(), all.size(), all.data());
  return all;
}
buffer<int> device(const stream& s, const std::vector<int>& values) {
  buffer<int> b(values.size());
  kd::cuda::upload(s, values.data(), values.size(), b.data());
  s.synchronize();
  return b;
}

}  // namespace

TEST_CASE("cuda graph: recording does nothing, each launch does all of it", "[cuda][graph]") {
  const stream s;
  const std::vector<int> one{1, 2, 3}, other{7, 8, 9};
  buffer<int> from = device(s, one), to = device(s, {0, 0, 0}), last = device(s, {0, 0, 0});
  graph recorded = graph::capture(s, [&] {
    kd::cuda::copy(s, from.data(), 3, to.data());
    kd::cuda::copy(s, to.data(), 3, last.data());
  });
  CHECK(host(s, last) == std::vector<int>{0, 0, 0});
  recorded.launch(s);
  CHECK(host(s, last) == one);
  // What lies in memory is read at each launch.
  kd::cuda::upload(s, other.data(), 3, from.data());
  recorded.launch(s);
  CHECK(host(s, last) == other);
  // A graph outlives the moves of its owner, and may be launched into another stream.
  const graph moved = std::move(recorded);
  kd::cuda::upload(s, one.data(), 3, from.data());
  s.synchronize();
  const stream second;
  moved.launch(second);
  CHECK(host(second, last) == one);
}

TEST_CASE("cuda graph: an exception while recording is passed on, and the stream stays usable", "[cuda][graph]") {
  const stream s;
  buffer<int> to = device(s, {1, 2});
  CHECK_THROWS_AS(graph::capture(s,
                                 [&] {
                                   kd::cuda::fill_zero(s, to.data(), 2);
                                   throw std::runtime_error("stop");
                                 }),
                  std::runtime_error);
  CHECK(host(s, to) == std::vector<int>{1, 2});
  graph::capture(s, [&] { kd::cuda::fill_zero(s, to.data(), 2); }).launch(s);
  CHECK(host(s, to) == std::vector<int>{0, 0});
}

TEST_CASE("cuda graph: waiting or allocating while recording is refused with a remedy", "[cuda][graph][error]") {
  const stream s;
  const auto waiting = kd_test::message_of<kd::device_error>([&] { graph::capture(s, [&] { s.synchronize(); }); });
  CHECK(kd_test::holds(waiting, "cudaStreamSynchronize failed: cudaErrorStreamCapture", "do the step once before"));
  const auto allocating = kd_test::message_of<kd::device_error>([&] { graph::capture(s, [] { buffer<int> b(5); }); });
  CHECK(kd_test::holds(allocating, "cudaMalloc of 20 bytes", "cudaErrorStreamCaptureUnsupported",
                       "do the step once before"));
  buffer<int> to = device(s, {3});
  CHECK(host(s, to) == std::vector<int>{3});
}

TEST_CASE("cuda event: another stream waits for the mark", "[cuda][event]") {
  const stream first, second;
  const std::vector<int> values(1000, 5);
  buffer<int> from = device(first, values), between(1000), to(1000);
  event written;
  for (int repeat = 0; repeat < 20; ++repeat) {
    kd::cuda::fill_zero(first, between.data(), 1000);
    kd::cuda::fill_zero(second, to.data(), 1000);
    kd::cuda::copy(first, from.data(), 1000, between.data());
    written.record(first);
    written.make_wait(second);
    kd::cuda::copy(second, between.data(), 1000, to.data());
    CHECK(host(second, to) == values);
    first.synchronize();
  }
}

TEST_CASE("cuda event: time passes between two marks", "[cuda][event]") {
  const stream s;
  buffer<int> memory(100000);
  event begin, end;
  begin.record(s);
  kd::cuda::fill_zero(s, memory.data(), memory.size());
  end.record(s);
  end.synchronize();
  const float elapsed = end.milliseconds_since(begin);
  CHECK(elapsed >= 0);
  CHECK(elapsed < 10000);
}

TEST_CASE("cuda workspace: temporaries of a frame do not overlap and are given back with it", "[cuda][workspace]") {
  const stream s;
  workspace room;
  std::byte* first = nullptr;
  {
    workspace::frame all(room);
    first = all.take<std::byte>(s, 1000);
    CHECK(reinterpret_cast<std::uintptr_t>(first) % workspace::alignment == 0);
    CHECK(all.take<float>(s, 0) == nullptr);
    CHECK(room.pieces() == 1);
    CHECK(room.capacity() == 1024);
    // Grows: what was taken stays where it is.
    float* const second = all.take<float>(s, 1000);
    CHECK(room.pieces() == 2);
    kd::cuda::fill_zero(s, second, 1000);
    kd::cuda::fill_zero(s, first, 1000);
    {
      workspace::frame inner(room);
      std::byte* const third = inner.take<std::byte>(s, 256);
      CHECK(third >= reinterpret_cast<std::byte*>(second + 1000));
      workspace::frame again(room);
      CHECK(again.take<std::byte>(s, 1) >= third + 256);
    }
    s.synchronize();
  }
  // The next time one piece holds all of it, from its beginning.
  for (int repeat = 0; repeat < 3; ++repeat) {
    workspace::frame all(room);
    std::byte* const a = all.take<std::byte>(s, 1000);
    std::byte* b = nullptr;
    {
      workspace::frame inner(room);
      b = inner.take<std::byte>(s, 4000);
      CHECK(b == a + 1024);
    }
    CHECK(reinterpret_cast<std::byte*>(all.take<float>(s, 1000)) == b);
    CHECK(room.pieces() == 2);
  }
}

TEST_CASE("cuda workspace: growing in an inner frame leaves the outer frame's temporaries alone", "[cuda][workspace]") {
  const stream s;
  workspace room;
  workspace::frame outer(room);
  int* const kept = outer.take<int>(s, 64);
  const std::vector<int> values(64, 9);
  kd::cuda::upload(s, values.data(), 64, kept);
  int* last = nullptr;
  for (const std::size_t n : {64u, 1000u, 100000u}) {
    workspace::frame inner(room);
    last = inner.take<int>(s, n);
    kd::cuda::fill_zero(s, last, n);
  }
  // What the inner frame gave back is taken again.
  CHECK(outer.take<int>(s, 300) == last);
  kd::cuda::fill_zero(s, last, 300);
  std::vector<int> got(64);
  kd::cuda::download(s, kept, 64, got.data());
  CHECK(got == values);
}

TEST_CASE("cuda workspace: a graph recorded before it grew stays right", "[cuda][workspace]") {
  const stream s;
  workspace room;
  const std::vector<int> values(100, 4);
  buffer<int> from = device(s, values), to(100);
  const auto step = [&] {
    workspace::frame all(room);
    int* const between = all.take<int>(s, 100);
    kd::cuda::copy(s, from.data(), 100, between);
    kd::cuda::copy(s, between, 100, to.data());
  };
  step();
  const graph recorded = graph::capture(s, step);
  {
    workspace::frame all(room);
    all.take<std::byte>(s, 1000000);
  }
  buffer<int> other(1000);  // would lie where memory was freed
  kd::cuda::fill_zero(s, other.data(), 1000);
  kd::cuda::fill_zero(s, to.data(), 100);
  recorded.launch(s);
  CHECK(host(s, to) == values);
  CHECK(host(s, other) == std::vector<int>(1000, 0));
}

TEST_CASE("cuda workspace: growing while a graph is recorded is refused with a remedy", "[cuda][workspace][error]") {
  const stream s;
  workspace room;
  {
    workspace::frame all(room);
    all.take<std::byte>(s, 512);
  }
  const auto message = kd_test::message_of<kd::device_error>([&] {
    graph::capture(s, [&] {
      workspace::frame all(room);
      all.take<std::byte>(s, 512);
      all.take<std::byte>(s, 100);
    });
  });
  CHECK(kd_test::holds(message, "needs 768 bytes for temporaries, 512 are there", "do the step once before"));
  CHECK(room.pieces() == 1);
}
