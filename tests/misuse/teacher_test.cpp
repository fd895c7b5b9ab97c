/// Teachers that are not there, are the student, or belong to other data.
#include <kd/kd.hpp>

#include <limits>
#include <string>
#include <utility>

#include "support/catch.hpp"
#include "support/message.hpp"
#include "support/tiny.hpp"

using namespace kd_test;
using device = kd::cpu::device;
using tiny = kd::network<TinyNet, device>;

namespace {

const kd::distillation loss{.temperature = 2, .kd_weight = 0.5f, .ce_weight = 0.5f};

template <class Teacher>
std::string refused(tiny& student, const kd::data::dataset& set, Teacher teacher,
                    const kd::train::options& settings = {.epochs = 1, .batch_size = 16}) {
  return message_of<kd::argument_error>([&] {
    kd::train::trainer<tiny, kd::distillation, kd::optim::adam, Teacher> one(student, set, loss, {}, settings, teacher);
  });
}

}  // namespace

TEST_CASE("misuse: a teacher that is not there", "[misuse][teacher]") {
  device cpu(1);
  tiny net(cpu, 1);
  const auto set = quadrants(64, 8);
  CHECK(holds(refused(net, set, kd::train::cached_teacher{}), "kd::train::trainer: cached_teacher needs logits",
              "a null pointer", "cached_teacher{&logits}"));
  CHECK(holds(refused(net, set, kd::train::live_teacher<tiny>{}), "kd::train::trainer: live_teacher needs a network",
              "a null pointer", "{&network}"));
}

TEST_CASE("misuse: logits of other data, or moved away", "[misuse][teacher]") {
  device cpu(1);
  tiny net(cpu, 1);
  const auto set = quadrants(64, 8);
  kd::tensor<float, 2> logits({64, 4});
  const kd::tensor<float, 2> short_one({63, 4}), wide({64, 5}), none;
  CHECK(holds(refused(net, set, kd::train::cached_teacher{&short_one}), "teacher logits [64,4]", "received [63,4]",
              "same training set"));
  CHECK(holds(refused(net, set, kd::train::cached_teacher{&wide}), "[64,4]", "received [64,5]", "same training set"));
  CHECK(holds(refused(net, set, kd::train::cached_teacher{&none}), "[64,4]", "received [0,0]", "same training set"));
  CHECK(refused(net, set, kd::train::cached_teacher{&logits}) == "nothing was thrown");
  const kd::tensor<float, 2> taken = std::move(logits);
  CHECK(taken.extent(0) == 64);
  CHECK(holds(refused(net, set, kd::train::cached_teacher{&logits}),  // NOLINT(bugprone-use-after-move)
              "[64,4]", "received [0,0]"));
}

TEST_CASE("misuse: cached logits of images that augmentation changes", "[misuse][teacher]") {
  device cpu(1);
  tiny net(cpu, 1);
  const auto set = quadrants(64, 8);
  const kd::tensor<float, 2> logits({64, 4});
  const kd::train::options settings{.epochs = 1, .augment = {.flip = true}};
  CHECK(holds(refused(net, set, kd::train::cached_teacher{&logits}, settings), "kd::train::trainer: cached teacher",
              "received augmentation", "pass the teacher network"));
  CHECK(holds(
      message_of<kd::argument_error>([&] { kd::train::distil(net, logits, set, loss, kd::optim::adam{}, settings); }),
      "received augmentation", "pass the teacher network"));
}

TEST_CASE("misuse: one object as student and live teacher", "[misuse][teacher]") {
  device cpu(1);
  tiny net(cpu, 1), other(cpu, 1);
  const auto set = quadrants(64, 8);
  CHECK(holds(refused(net, set, kd::train::live_teacher<tiny>{&net}), "kd::train::trainer: teacher and student",
              "received one object as both", "a second network"));
  const kd::train::options settings{.epochs = 1, .batch_size = 16, .augment = {.crop_padding = 1, .flip = true}};
  CHECK(holds(
      message_of<kd::argument_error>([&] { kd::train::distil(net, net, set, loss, kd::optim::adam{}, settings); }),
      "one object as both"));
  CHECK(equal_weights(net, other));
}

TEST_CASE("a network that learns from its own first logits is the student of a copy", "[misuse][teacher]") {
  device cpu(1);
  tiny self(cpu, 1), student(cpu, 1), copy(cpu, 1);
  const auto set = quadrants(64, 8);
  const kd::train::options settings{.epochs = 2, .batch_size = 16};
  const auto one = kd::train::distil(self, self, set, loss, kd::optim::adam{}, settings);
  const auto two = kd::train::distil(student, copy, set, loss, kd::optim::adam{}, settings);
  CHECK(one.back().loss == two.back().loss);
  CHECK(equal_weights(self, student));
}

TEST_CASE("misuse: a fault names the sample in file order", "[misuse][teacher]") {
  device cpu(1);
  const auto set = quadrants(64, 8);
  for (const std::size_t sample : {std::size_t{0}, std::size_t{17}, std::size_t{63}}) {
    kd::tensor<float, 2> logits({64, 4});
    logits(sample, 2) = std::numeric_limits<float>::quiet_NaN();
    tiny net(cpu, 1);
    const std::string message = message_of<kd::non_finite_error>([&] {
      kd::train::distil(net, logits, set, loss, kd::optim::adam{}, {.epochs = 1, .batch_size = 16, .name = "small"});
    });
    // The row of the shuffled batch, worked out from the order.
    const auto order = kd::data::epoch_order(64, 0, 0);
    std::size_t at = 0;
    while (order[at] != sample) ++at;
    INFO(message);
    CHECK(holds(message,
                kd::text("small: distillation: teacher logits have a NaN at row ", at % 16, ", class 2 of step ",
                         at / 16 + 1, ", training sample ", sample, "; "),
                "before the weights were touched", "look at this sample"));
  }
}

TEST_CASE("misuse: a trainer's parts out of order", "[misuse][teacher]") {
  device cpu(1);
  tiny net(cpu, 1), fresh(cpu, 1);
  const auto set = quadrants(64, 8);
  kd::train::trainer<tiny, kd::cross_entropy, kd::optim::adam> one(net, set, {}, {}, {.batch_size = 16});
  const auto message = [](const auto& call) { return message_of<kd::argument_error>(call); };
  CHECK(holds(message([&] { one.enqueue_step(0); }), "kd::train::trainer::enqueue_step: an epoch must have begun",
              "begin_epoch first"));
  CHECK(holds(message([&] { one.finish_epoch(); }), "kd::train::trainer::finish_epoch: an epoch must have begun",
              "begin_epoch first"));
  one.begin_epoch(0);
  CHECK(holds(message([&] { one.step(4); }), "kd::data::batches[]", "below 4, received 4", "loop to size()"));
  CHECK(equal_weights(net, fresh));
  CHECK(one.step(3).rows == 16);
}
