/// The fused loss on arrays of one's own: null pointers, sizes, scratch, labels, overlaps, and what it says of a fault.
#include <kd/cpu/logit_loss.hpp>
#include <kd/loss/cross_entropy.hpp>
#include <kd/loss/distillation.hpp>

#include <limits>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/message.hpp"

using namespace kd_test;

namespace {

constexpr std::size_t largest = std::numeric_limits<std::size_t>::max();

/// Four rows of three classes, and a call that a test can spoil.
struct call {
  kd::cpu::parallel par{1};
  std::size_t rows = 4, classes = 3;
  std::vector<float> student = std::vector<float>(12), teacher = student, gradient = student;
  std::vector<std::int32_t> labels = {0, 1, 2, 0};
  std::vector<std::byte> scratch = std::vector<std::byte>(kd::cpu::logit_loss_scratch(par, rows, classes));
  float *z = student.data(), *t = teacher.data(), *d = gradient.data();
  const std::int32_t* y = labels.data();

  template <class Loss>
  kd::loss_result of(const Loss& loss) {
    return kd::cpu::logit_loss_forward_backward(
        par,
        kd::formula::logit_batch<float>{
            .rows = rows, .classes = classes, .student = {z}, .teacher = {t}, .labels = {y}, .gradient = {d}},
        loss, scratch);
  }
  kd::loss_result distillation() { return of(kd::distillation{}); }
  kd::loss_result cross_entropy() { return of(kd::cross_entropy{}); }
};

template <class Change>
std::string refused(const Change& change) {
  call one;
  change(one);
  return message_of<kd::argument_error>([&] { (void)one.distillation(); });
}
template <class Change>
std::string refused_without_teacher(const Change& change) {
  call one;
  change(one);
  return message_of<kd::argument_error>([&] { (void)one.cross_entropy(); });
}

}  // namespace

TEST_CASE("misuse: null pointers to the loss", "[misuse][loss]") {
  CHECK(refused([](call&) {}) == "nothing was thrown");
  CHECK(refused([](call& c) { c.d = nullptr; }) == "nothing was thrown");  // the value alone
  CHECK(holds(refused([](call& c) { c.z = nullptr; }), "distillation: student logits", "a null pointer",
              "[rows,classes]"));
  CHECK(holds(refused([](call& c) { c.t = nullptr; }), "distillation: teacher logits", "a null pointer",
              "[rows,classes]"));
  CHECK(holds(refused([](call& c) { c.y = nullptr; }), "distillation", "labels must not be null", "[rows]"));
  CHECK(holds(refused_without_teacher([](call& c) { c.z = nullptr; }), "cross_entropy: student logits",
              "a null pointer", "[rows,classes]"));
}

TEST_CASE("misuse: sizes of the loss", "[misuse][loss]") {
  CHECK(holds(refused([](call& c) { c.classes = 0; }), "distillation: there must be at least one class", "received 0",
              "logits' width"));
  CHECK(holds(refused([](call& c) { c.scratch.pop_back(); }), "distillation: scratch must have", "received",
              "ask logit_loss_scratch"));
  CHECK(holds(refused([](call& c) { c.scratch = {}; }), "distillation: scratch must have", "received 0"));
  // The products of these sizes with the bytes of a logit, or of a row's sums, wrap to small numbers.
  for (const std::size_t rows : {largest / 4 + 1, largest / 12 + 1, largest / 32 + 1, largest})
    CHECK(holds(refused([&](call& c) { c.rows = rows; }), "sizes must multiply to at most", kd::text(rows, " * 3"),
                "pass fewer rows"));
  CHECK(holds(refused([](call& c) { c.classes = largest / 16 + 1; }), "sizes must multiply to at most",
              "pass fewer rows"));
  CHECK(holds(message_of<kd::argument_error>([] { (void)kd::cpu::logit_loss_scratch({8}, largest / 32 + 2, 1); }),
              "kd::cpu::logit_loss_scratch: sizes must multiply", "pass fewer rows"));
}

TEST_CASE("misuse: labels that the loss does not take", "[misuse][loss]") {
  CHECK(holds(refused([](call& c) { c.labels[1] = -1; }), "distillation: label 1 must be in [0, 3), received -1",
              "count from 0"));
  CHECK(holds(refused([](call& c) { c.labels[3] = 3; }), "distillation: label 3", "received 3", "count from 0"));
  CHECK(holds(refused_without_teacher([](call& c) { c.labels[0] = -1; }), "cross_entropy: label 0", "received -1"));
}

TEST_CASE("misuse: a gradient that overlaps what is still to be read", "[misuse][loss]") {
  CHECK(refused([](call& c) { c.d = c.z; }) == "nothing was thrown");  // in place
  CHECK(holds(refused([](call& c) { c.d = c.t; }), "distillation: the gradient must not share memory",
              "arrays that overlap", "an array of its own"));
  const auto half = [](call& c) {
    c.student.resize(24);
    c.z = c.student.data();
    c.d = c.z + 6;
  };
  CHECK(holds(refused(half), "the gradient must not share memory", "arrays that overlap"));
  CHECK(holds(refused_without_teacher(half), "cross_entropy: the gradient must not share memory"));
  CHECK(refused([](call& c) {
          c.student.resize(24);
          c.z = c.student.data();
          c.d = c.z + 12;  // the next array
        }) == "nothing was thrown");
}

TEST_CASE("misuse: a fault of a loss alone speaks of the loss alone", "[misuse][loss]") {
  call one;
  one.student[7] = std::numeric_limits<float>::quiet_NaN();
  const std::string message =
      message_of<kd::non_finite_error>([&] { (void)kd::require_finite(one.distillation(), "mine"); });
  INFO(message);
  CHECK(holds(message, "mine: student logits have a NaN at row 2, class 1", "terms and gradient are void",
              "look at the logits and labels"));
  CHECK(!holds(message, "training"));
  CHECK(!holds(message, "step"));
}
