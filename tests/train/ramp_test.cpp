#include "kd/train/ramp.hpp"

#include <limits>
#include <vector>

#include "kd/formula/reverse_kl.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/message.hpp"
#include "support/tiny.hpp"

using namespace kd_test;
using kd::train::ramp;
using kd::train::with_ramps;

namespace {

/// A divergence with options of every kind.
struct scaled_kl {
  float scale = 1;
  double offset = 0;
  bool turned = false;
  static constexpr const char* name = "scaled_kl";
  static constexpr void options(auto&& each) {
    using mine = scaled_kl;
    using kd::formula::option;
    each(option{"scale", &mine::scale, 0, 10, "1 is usual"});
    each(option{"offset", &mine::offset, -1, 1, "0 is usual"});
    each(option{"turned", &mine::turned, "false is usual"});
  }
};
using scaled = kd::distillation_with<scaled_kl>;

}  // namespace

TEST_CASE("ramp: an option goes in a straight line to its value, and stays there to the bit", "[train][ramp]") {
  const std::vector<ramp> ramps{{.option = "kd_weight", .from = 0, .epochs = 20},
                                {.option = "temperature", .from = 1, .epochs = 4}};
  const kd::distillation loss{.temperature = 5, .kd_weight = 0.3f};
  for (std::size_t epoch = 0; epoch < 30; ++epoch) {
    const kd::distillation now = with_ramps(loss, ramps, epoch);
    const auto done = static_cast<double>(epoch + 1);
    CHECK(near(now.kd_weight, double{0.3f} * std::min(done / 20, 1.0), {.relative = 1e-7}));
    CHECK(near(now.temperature, 1 + 4 * std::min(done / 4, 1.0), {.relative = 1e-7}));
    CHECK(now.ce_weight == loss.ce_weight);
    if (epoch >= 19) CHECK(now.kd_weight == loss.kd_weight);
    if (epoch >= 3) CHECK(now.temperature == loss.temperature);
  }
  const scaled turned{.divergence = {.scale = 4, .offset = 0.5, .turned = true}};
  const std::vector<ramp> own{{.option = "divergence.scale", .from = 8, .epochs = 2},
                              {.option = "divergence.offset", .from = -0.5, .epochs = 2}};
  const scaled half = with_ramps(turned, own, 0);
  CHECK(half.divergence.scale == 6.0f);
  CHECK(half.divergence.offset == 0.0);
  CHECK(half.divergence.turned);
}

TEST_CASE("ramp: what a loss cannot follow is refused with name, value and remedy", "[train][ramp][errors]") {
  const auto refused = [](const auto& loss, const std::vector<ramp>& ramps) {
    return message_of<kd::argument_error>([&] { kd::train::require_ramps(loss, ramps); });
  };
  const kd::distillation loss;
  CHECK(refused(loss, {{.option = "temperature", .from = 1, .epochs = 1}}) == nothing_thrown);
  CHECK(holds(refused(loss, {{.option = "alpha"}}), "a number of the loss distillation",
              "(temperature, kd_weight, ce_weight, teacher_temperature)", "received alpha"));
  CHECK(holds(refused(scaled{}, {{.option = "divergence.turned"}}), "divergence.scale, divergence.offset)"));
  CHECK(holds(refused(kd::cross_entropy{}, {{.option = "temperature"}}), "a number of the loss cross_entropy"));
  CHECK(holds(refused(loss, {{.option = "kd_weight"}, {.option = "kd_weight"}}), "two of kd_weight"));
  CHECK(holds(refused(loss, {{.option = "kd_weight", .epochs = 0}}), "epochs must be at least 1"));
  CHECK(holds(refused(loss, {{.option = "temperature", .from = 0}}), "temperature must be a number in", "received 0"));
  CHECK(holds(refused(loss, {{.option = "kd_weight", .from = std::numeric_limits<double>::quiet_NaN()}}),
              "kd_weight must be finite"));
}

TEST_CASE("ramp: each epoch is trained with its own loss, and a run goes on only with the same ramps",
          "[train][ramp][resume]") {
  kd::cpu::device cpu(1);
  const auto set = quadrants(64, 8);
  using tiny = kd::network<TinyNet, kd::cpu::device>;
  tiny teacher(cpu, 1);
  const auto logits = kd::train::predict(teacher, set.train.images);
  const kd::optim::adam adam{.learning_rate = 3e-3};
  const kd::distillation loss{.temperature = 4, .kd_weight = 0.5f};
  const folder dir;
  kd::train::options settings{
      .epochs = 3,
      .batch_size = 32,
      .ramps = {{.option = "temperature", .from = 1, .epochs = 2}, {.option = "kd_weight", .from = 0, .epochs = 3}},
      .checkpoint = dir / "state"};
  tiny student(cpu, 2), by_hand(cpu, 2);
  const auto history = kd::train::distil(student, logits, set, loss, adam, settings);
  // The same by hand: an epoch each with another loss, on one optimiser's state.
  const kd::train::options plain{.epochs = 3, .batch_size = 32};
  using trainer = kd::train::trainer<tiny, kd::distillation, kd::optim::adam, kd::train::cached_teacher>;
  trainer whole(by_hand, set, loss, adam, plain, {&logits});
  std::vector<kd::train::epoch_record> done;
  for (std::size_t epoch = 0; epoch < 3; ++epoch) {
    const kd::distillation now = with_ramps(loss, settings.ramps, epoch);
    trainer one(by_hand, set, now, adam, plain, {&logits});
    one.restore_history(done);
    for (std::size_t i = 0; i < trainer::states; ++i) std::copy_n(whole.state(i), tiny::parameter_floats, one.state(i));
    done.push_back(one.run_epoch());
    for (std::size_t i = 0; i < trainer::states; ++i) std::copy_n(one.state(i), tiny::parameter_floats, whole.state(i));
    CHECK(near(done[epoch].loss,
               double{now.ce_weight} * done[epoch]["cross_entropy"] + double{now.kd_weight} * done[epoch]["kd"],
               {.relative = 1e-12}));
    CHECK(history[epoch].loss == done[epoch].loss);
  }
  CHECK(equal_weights(student, by_hand));

  tiny more(cpu, 3);
  settings.epochs = 4;
  CHECK(kd::train::distil(more, logits, set, loss, adam, settings).size() == 4);
  settings.ramps[1].from = 0.25;
  CHECK(holds(message_of<kd::file_error>([&] { kd::train::distil(more, logits, set, loss, adam, settings); }),
              "ramps: the file has \"temperature from 1 over 2 epochs, kd_weight from 0 over 3 epochs\", now "
              "\"temperature from 1 over 2 epochs, kd_weight from 0.25 over 3 epochs\""));
  settings.ramps.clear();
  CHECK(holds(message_of<kd::file_error>([&] { kd::train::distil(more, logits, set, loss, adam, settings); }),
              "kd_weight from 0 over 3 epochs\", now null"));
}
