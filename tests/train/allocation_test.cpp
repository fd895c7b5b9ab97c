/// No allocation inside a training step: global operator new and aligned_alloc are counted.
#include <kd/kd.hpp>

#include <atomic>
#include <cstdlib>
#include <new>

#include "support/catch.hpp"
#include "support/tiny.hpp"

// The replaced functions are a pair of their own; GCC sees only halves of it where it inlines.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#endif

namespace {
std::atomic<long> allocations{0};
std::atomic<std::size_t> allocated_bytes{0};

void count(std::size_t size) {
  ++allocations;
  allocated_bytes += size;
}
}

void* operator new(std::size_t size) {
  count(size);
  if (void* p = std::malloc(size == 0 ? 1 : size)) return p;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  count(size);
  return std::malloc(size == 0 ? 1 : size);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  count(size);
  const auto a = static_cast<std::size_t>(alignment);
  if (void* p = std::aligned_alloc(a, (size + a - 1) / a * a)) return p;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  count(size);
  const auto a = static_cast<std::size_t>(alignment);
  return std::aligned_alloc(a, (size + a - 1) / a * a);
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { std::free(p); }

namespace {

/// Allocations and buffer moves of the steps after the first one.
template <class Model, class Loss, class Teacher>
long allocations_of_steps(const kd::data::dataset& set, const Loss& loss, const Teacher& teacher) {
  kd::cpu::device cpu(2);
  kd::network<Model, kd::cpu::device> net(cpu, 1);
  kd::train::trainer<kd::network<Model, kd::cpu::device>, Loss, kd::optim::adam, Teacher> run(
      net, set, loss, kd::optim::adam{}, {.batch_size = 24}, teacher);
  const auto all = run.begin_epoch(0);
  run.step(0);
  const long before = allocations;
  for (std::size_t b = 1; b < all.size(); ++b) run.step(b);
  return allocations - before;
}

}  // namespace

TEST_CASE("a training step allocates nothing", "[train][allocation]") {
  const long start = allocations;
  (void)std::vector<int>(10);
  REQUIRE(allocations > start);  // the counter counts
  const auto set = kd_test::quadrants(64, 4);
  const kd::tensor<float, 2> logits({64, 4});
  CHECK(allocations_of_steps<kd_test::TinyNet>(set, kd::cross_entropy{}, kd::train::no_teacher{}) == 0);
  CHECK(allocations_of_steps<kd_test::TinyNet>(set, kd::distillation{}, kd::train::cached_teacher{&logits}) == 0);
  kd::data::dataset images = kd::data::synthetic_shapes({.train = 60, .test = 10});
  CHECK(allocations_of_steps<kd::models::LightNN>(images, kd::cross_entropy{}, kd::train::no_teacher{}) == 0);
}

TEST_CASE("a loss on own arrays allocates nothing where it is given scratch", "[loss][allocation]") {
  constexpr std::size_t rows = 40, classes = 700;
  std::vector<float> student(rows * classes, 1.0f), teacher(rows * classes, 2.0f), gradient(rows * classes);
  std::vector<std::int64_t> labels(rows, 3);
  labels[7] = -100;
  const kd::logit_batch<float, float, std::int64_t> batch{.rows = rows,
                                                          .classes = classes,
                                                          .student = {student.data()},
                                                          .teacher = {teacher.data()},
                                                          .labels = {labels.data()},
                                                          .gradient = {gradient.data()}};
  const kd::cpu::parallel threads{2};
  std::vector<std::byte> scratch(kd::cpu::logit_loss_scratch(threads, rows, classes));
  const kd::distillation_with<kd::formula::jensen_shannon> loss;
  (void)kd::cpu::logit_loss_forward_backward(threads, batch, loss, scratch);  // the team starts
  const long before = allocations;
  const kd::loss_result result = kd::cpu::logit_loss_forward_backward(threads, batch, loss, scratch);
  CHECK(allocations == before);
  CHECK(result.terms.rows == rows - 1);
}

TEST_CASE("a loss on products allocates its chunk within the bound, at once, and nothing else", "[loss][allocation]") {
  constexpr std::size_t rows = 64, classes = 3000, width = 40;
  const std::vector<float> hidden(rows * width, 0.01f), matrix(classes * width, 0.02f);
  const std::vector<std::int32_t> labels(rows, 3);
  std::vector<float> d_hidden(rows * width), d_matrix(classes * width);
  kd::linear_batch<float> batch{.rows = rows,
                                .classes = classes,
                                .student = {hidden.data(), matrix.data(), width},
                                .teacher = {hidden.data(), matrix.data(), width},
                                .labels = labels.data(),
                                .d_hidden = d_hidden.data(),
                                .d_matrix = d_matrix.data()};
  const kd::cpu::device cpu(2);
  (void)kd::forward_backward(kd::distillation{}, batch, cpu);  // the team starts
  std::size_t rows_before = 0;
  for (const std::size_t memory : {500'000u, 1'000'000u, 4'000'000u}) {
    batch.memory = memory;
    const kd::linear_chunk chunk = kd::linear_chunks(kd::distillation{}, batch, cpu);
    const long before = allocations;
    const std::size_t bytes_before = allocated_bytes;
    (void)kd::forward_backward(kd::distillation{}, batch, cpu);
    const std::size_t bytes = allocated_bytes - bytes_before;
    const long calls = allocations - before;
    CAPTURE(memory, chunk.rows, chunk.bytes);
    CHECK(calls == 1);
    CHECK(bytes == chunk.bytes);
    CHECK(bytes <= memory);
    CHECK(chunk.rows > rows_before);
    rows_before = chunk.rows;
  }
}
