/// What a training on the CUDA device promises beyond one step: epochs, teachers, faults, streams, evaluation.
#include <kd/kd.hpp>

#include <limits>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/folder.hpp"
#include "support/message.hpp"
#include "support/tiny.hpp"

using namespace kd_test;
using device = kd::cuda::device;
using tiny = kd::network<TinyNet, device>;
using cpu_tiny = kd::network<TinyNet, kd::cpu::device>;

namespace {

template <class Network>
std::vector<float> weights_of(const Network& network) {
  std::vector<float> host(network.parameter_floats);
  network.device().download(network.parameters(), host.size(), host.data());
  return host;
}

const kd::train::options settings{.epochs = 2, .batch_size = 16, .seed = 4};

}  // namespace

TEST_CASE("cuda fit: epochs with a partial last batch learn as the CPU does", "[cuda][train]") {
  const auto set = quadrants(40, 24);
  device gpu;
  kd::cpu::device cpu(2);
  tiny net(gpu, 1);
  cpu_tiny reference(cpu, 1);
  const auto got = kd::train::fit(net, set, kd::optim::adam{.learning_rate = 3e-3}, settings);
  const auto want = kd::train::fit(reference, set, kd::optim::adam{.learning_rate = 3e-3}, settings);
  REQUIRE(got.size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    INFO("epoch " << i << ", want the CPU's");
    CHECK(near(got[i].loss, want[i].loss, {.relative = 1e-3}));
    CHECK(near(got[i].accuracy, want[i].accuracy, {.absolute = 0.051}));  // two of 40 samples near a tie
  }
  CHECK(net.batches_tracked == reference.batches_tracked);
  const auto right = kd::train::evaluate(net, set.test), expected = kd::train::evaluate(reference, set.test);
  CHECK(near(right.top1, expected.top1, {.absolute = 0.084}));
}

TEST_CASE("cuda fit: schedules and every optimiser follow the CPU", "[cuda][train][optim]") {
  const auto set = quadrants(32, 4);
  const auto check = [&](const auto& optimiser) {
    device gpu;
    kd::cpu::device cpu(2);
    tiny net(gpu, 1);
    cpu_tiny reference(cpu, 1);
    kd::train::options one = settings;
    one.schedule = kd::optim::schedule::one_cycle(4);
    const auto got = kd::train::fit(net, set, optimiser, one);
    const auto want = kd::train::fit(reference, set, optimiser, one);
    CHECK(near(got[1].loss, want[1].loss, {.relative = 1e-3}));
    CHECK(got[1].learning_rate == want[1].learning_rate);
  };
  [&]<class... Rules>(kd::type_list<Rules...>) { (check(Rules{}), ...); }(kd::optim::all_rules{});
  check(kd::optim::sgd{.learning_rate = 0.05, .momentum = 0.9, .weight_decay = 1e-3, .nesterov = true});
}

TEST_CASE("cuda distil: cached logits and a live teacher give the same student", "[cuda][train][distillation]") {
  const auto set = quadrants(32, 4);
  device gpu;
  tiny teacher(gpu, 1), cached(gpu, 2), live(gpu, 2);
  const kd::distillation loss{.temperature = 2, .kd_weight = 0.5f, .ce_weight = 0.5f};
  const auto before = weights_of(teacher);
  const auto history = kd::train::distil(cached, teacher, set, loss, kd::optim::adam{}, settings);
  kd::train::trainer<tiny, kd::distillation, kd::optim::adam, kd::train::live_teacher<tiny>> run(
      live, set, loss, kd::optim::adam{}, settings, {&teacher});
  const auto live_history = kd::train::run(run);
  CHECK(history.back()["kd"] > 0);
  CHECK(near(live_history.back().loss, history.back().loss, {.relative = 1e-4}));
  CHECK(before == weights_of(teacher));
}

TEST_CASE("cuda distil: a live teacher on another device object is refused", "[cuda][train][distillation][errors]") {
  const auto set = quadrants(32, 4);
  device gpu, other;
  tiny student(gpu, 2), teacher(other, 1);
  const auto before = weights_of(student);
  using trainer = kd::train::trainer<tiny, kd::distillation, kd::optim::adam, kd::train::live_teacher<tiny>>;
  const std::string message =
      message_of<kd::argument_error>([&] { trainer(student, set, {}, {}, settings, {&teacher}); });
  INFO(message);
  CHECK(holds(message, "kd::train::trainer", "a live teacher must be on the student's device object",
              "make both networks with one device"));
  CHECK(before == weights_of(student));
}

TEST_CASE("cuda distil: a NaN is reported with its step, and the weights stay as they were before it",
          "[cuda][train][errors]") {
  const auto set = quadrants(32, 4);
  kd::tensor<float, 2> logits({set.train.size(), 4});
  device gpu;
  tiny student(gpu, 2);
  const auto before = weights_of(student);
  for (std::size_t i = 0; i < logits.extent(0); ++i) logits(i, 2) = std::numeric_limits<float>::quiet_NaN();
  const std::string message = message_of<kd::non_finite_error>(
      [&] { kd::train::distil(student, logits, set, {}, kd::optim::adam{}, settings); });
  INFO(message);
  const auto order = kd::data::epoch_order(32, settings.seed, 0);
  CHECK(holds(message, "teacher logits have a NaN at row 0, class 2 of step 1, training sample ",
              kd::text("sample ", order[0], ";")));
  CHECK(before == weights_of(student));
}

TEST_CASE("cuda distil: a fault in the middle of an epoch names its sample in file order", "[cuda][train][errors]") {
  const auto set = quadrants(40, 4);
  device gpu;
  const auto order = kd::data::epoch_order(40, settings.seed, 0);
  for (const std::size_t place : {std::size_t{21}, std::size_t{37}}) {  // in the second, and in the last, shorter batch
    kd::tensor<float, 2> logits({set.train.size(), 4});
    logits(order[place], 1) = std::numeric_limits<float>::quiet_NaN();
    tiny student(gpu, 2);
    const std::string message = message_of<kd::non_finite_error>(
        [&] { kd::train::distil(student, logits, set, {}, kd::optim::adam{}, settings); });
    INFO(message);
    CHECK(holds(message, kd::text("NaN at row ", place % 16, ", class 1 of step ", place / 16 + 1, ", training sample ",
                                  order[place], ";")));
  }
}

TEST_CASE("cuda run_together: runs on streams of their own give the bits that they give alone", "[cuda][train]") {
  const auto set = quadrants(32, 4);
  using trainer = kd::train::trainer<tiny, kd::cross_entropy, kd::optim::adam>;
  device gpu, other;
  tiny alone_a(gpu, 1), alone_b(gpu, 2), a(gpu, 1), b(other, 2);
  kd::train::options longer = settings;
  longer.seed = 9;
  kd::train::fit(alone_a, set, kd::optim::adam{}, settings);
  kd::train::fit(alone_b, set, kd::optim::adam{}, longer);
  trainer first(a, set, {}, {}, settings), second(b, set, {}, {}, longer);
  kd::train::run_together(first, second);
  CHECK(weights_of(a) == weights_of(alone_a));
  CHECK(weights_of(b) == weights_of(alone_b));
}

TEST_CASE("cuda resume: a run that was stopped goes on to the same bits", "[cuda][train][resume]") {
  const auto set = quadrants(32, 4);
  const folder files;
  device gpu;
  tiny whole(gpu, 1), half(gpu, 1), rest(gpu, 7);
  kd::train::options one = settings;
  kd::train::fit(whole, set, kd::optim::adam{}, one);
  one.checkpoint = files / "state.safetensors";
  one.epochs = 1;
  kd::train::fit(half, set, kd::optim::adam{}, one);
  one.epochs = 2;
  kd::train::fit(rest, set, kd::optim::adam{}, one);
  CHECK(weights_of(rest) == weights_of(whole));
}

TEST_CASE("cuda train: teacher and student are normalised each by its own, in files and in recorded steps too",
          "[cuda][train][normalisation]") {
  const auto set = quadrants(32, 24);
  const folder files;
  const kd::normalisation unit{{0, 0, 0}, {1, 1, 1}};
  const kd::train::options one{.epochs = 2, .batch_size = 16, .seed = 4};
  const auto losses = [&]<class Device>(Device& d) {
    using network = kd::network<TinyNet, Device>;
    network teacher(d, 1, unit), student(d, 2), cached(d, 2);
    kd::train::trainer<network, kd::distillation, kd::optim::adam, kd::train::live_teacher<network>> run(
        student, set, {}, {}, one, {&teacher});
    std::vector<double> all{kd::train::distil(cached, teacher, set, {}, kd::optim::adam{}, one)[0]["kd"]};
    all.push_back(run.run_epoch()["kd"]);
    // Other weights are taken up between two epochs, and with them another normalisation.
    const std::string file = files / kd::text("unit-", sizeof(network));
    kd::train::save_weights(teacher, file);
    kd::train::load_weights(student, file);
    CHECK(student.pixels() == unit);
    all.push_back(run.run_epoch().loss);
    all.push_back(kd::train::predict(student, set.test.images)(3, 1));
    return all;
  };
  device gpu;
  kd::cpu::device cpu(2);
  const auto got = losses(gpu), want = losses(cpu);
  CHECK(near(got, want, {.relative = 1e-3}));  // the CPU's
  // The live teacher saw what the cached one saw.
  CHECK(near(got[1], got[0], {.relative = 1e-3}));
}

TEST_CASE("cuda train: evaluating between epochs with larger batches does not disturb what was recorded",
          "[cuda][train][graph]") {
  const auto set = quadrants(32, 40);
  device gpu;
  tiny plain(gpu, 1), watched(gpu, 1);
  kd::train::options long_run = settings;
  long_run.epochs = 4;
  kd::train::fit(plain, set, kd::optim::adam{}, long_run);
  kd::train::trainer<tiny, kd::cross_entropy, kd::optim::adam> run(watched, set, {}, {}, long_run);
  for (std::size_t epoch = 0; epoch < 4; ++epoch) {
    run.run_epoch();
    // Larger than any training batch in memory: the arena has to grow and moves.
    (void)kd::train::predict(watched, set.test.images, 40);
    (void)kd::train::predict(watched, set.test.images, 1);
  }
  CHECK(weights_of(plain) == weights_of(watched));
}

TEST_CASE("cuda train: weights whose sizes are no multiples of four reach cuDNN aligned, and learn as on the CPU",
          "[cuda][train]") {
  // 99 and 11 floats come before the filters of the second convolution, which cuDNN computes.
  using odd = nn::sequential<kd::image<1, 12, 12>, nn::conv2d<11, 3>, nn::conv2d<40, 5>, nn::global_avg_pool2d,
                             nn::flatten, nn::linear<3>>;
  kd::data::dataset set;
  set.name = "noise";
  set.image = kd::image_shape(1, 12, 12);
  set.classes = 3;
  for (std::uint32_t n = 0; n < 6; ++n) {
    set.train.labels.push_back(static_cast<std::int32_t>(n % 3));
    for (std::uint32_t e = 0; e < 144; ++e)
      set.train.images.push_back(
          static_cast<std::uint8_t>(kd::random_at(2, kd::random_stream::synthetic_data, e, n)[0] >> 24));
  }
  const auto train = [&](auto& device) {
    kd::network<odd, std::remove_reference_t<decltype(device)>> net(device, 1);
    kd::train::trainer<decltype(net), kd::cross_entropy, kd::optim::adamw> run(net, set, {}, {.weight_decay = 0.1},
                                                                               {.batch_size = 6, .seed = 4});
    run.begin_epoch(0);
    run.step(0);
    return weights_of(net);
  };
  device gpu;
  kd::cpu::device cpu(1);
  const std::vector<float> got = train(gpu), want = train(cpu);
  CHECK(std::count(got.begin(), got.end(), 0.0f) == 3);  // what fills the 99, 11 and 3 floats up
  CHECK(near(got, want, {.absolute = 1e-4}));            // a tenth of Adam's first step
}
