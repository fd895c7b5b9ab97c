#include "kd/train/trainer.hpp"

#include <limits>

#include "kd/formula/reverse_kl.hpp"

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/message.hpp"
#include "support/tiny.hpp"

using namespace kd_test;
using device = kd::cpu::device;
using tiny = kd::network<TinyNet, device>;

TEST_CASE("fit: learns what can be learnt", "[train]") {
  device cpu(2);
  const auto set = quadrants();
  tiny net(cpu, 1);
  const auto history =
      kd::train::fit(net, set, kd::optim::adam{.learning_rate = 3e-3}, {.epochs = 8, .batch_size = 32});
  REQUIRE(history.size() == 8);
  CHECK(history.back().loss < 0.5 * history.front().loss);
  CHECK(kd::train::evaluate(net, set.test).top1 >= 0.9);
  CHECK(net.batches_tracked == 8 * 7);
}

TEST_CASE("fit: the same seed gives the same bits on any number of threads, another seed does not", "[train]") {
  const auto set = quadrants();
  const auto trained = [&](int threads, std::uint64_t seed, auto optimiser) {
    device cpu(threads);
    tiny net(cpu, 1);
    kd::train::fit(net, set, optimiser, {.epochs = 2, .batch_size = 32, .seed = seed});
    return std::vector<float>(net.parameters(), net.parameters() + net.parameter_floats);
  };
  const auto once = trained(1, 3, kd::optim::adam{});
  CHECK(once == trained(1, 3, kd::optim::adam{}));
  CHECK(once == trained(2, 3, kd::optim::adam{}));
  CHECK(once == trained(3, 3, kd::optim::adam{}));
  CHECK(once != trained(2, 4, kd::optim::adam{}));
  CHECK(once != trained(2, 3, kd::optim::sgd{.learning_rate = 0.1, .momentum = 0.9}));
}

TEST_CASE("distil: cached logits and a live teacher give the same student", "[train][distillation]") {
  device cpu(2);
  const auto set = quadrants();
  tiny teacher(cpu, 1);
  kd::train::fit(teacher, set, kd::optim::adam{.learning_rate = 3e-3}, {.epochs = 3, .batch_size = 32});
  const kd::distillation loss{.temperature = 2, .kd_weight = 0.5f, .ce_weight = 0.5f};
  const kd::train::options settings{.epochs = 2, .batch_size = 32};

  tiny cached(cpu, 2), live(cpu, 2);
  const auto before = std::vector<float>(teacher.parameters(), teacher.parameters() + teacher.parameter_floats);
  const auto history = kd::train::distil(cached, teacher, set, loss, kd::optim::adam{}, settings);
  kd::train::trainer<tiny, kd::distillation, kd::optim::adam, kd::train::live_teacher<tiny>> run(
      live, set, loss, kd::optim::adam{}, settings, {&teacher});
  const auto live_history = kd::train::run(run);
  CHECK(history.back()["kd"] > 0);
  CHECK(history.back().teacher_agreement > 0.25);
  // The live teacher evaluates other batches than the cache did, but each of its rows alone.
  CHECK(near(live_history.back().loss, history.back().loss, {.relative = 1e-4}));
  CHECK(before == std::vector<float>(teacher.parameters(), teacher.parameters() + teacher.parameter_floats));
  // The total is the weighted sum of the terms that are reported apart.
  CHECK(near(history[0].loss, 0.5 * history[0]["cross_entropy"] + 0.5 * history[0]["kd"], {.absolute = 1e-9}));
  CHECK(history[0]["soft_cross_entropy"] > history[0]["kd"]);
}

TEST_CASE("distil: any divergence of the formulas trains, and its terms have their names", "[train][distillation]") {
  device cpu(1);
  const auto set = quadrants(64, 8);
  kd::tensor<float, 2> logits({set.train.size(), 4});
  for (std::size_t i = 0; i < set.train.size(); ++i) logits(i, static_cast<std::size_t>(set.train.labels[i])) = 3;
  const kd::distillation_with<kd::formula::reverse_kl> loss{.temperature = 2, .kd_weight = 0.5f, .ce_weight = 0.25f};
  tiny student(cpu, 2);
  const auto history = kd::train::distil(student, logits, set, loss, kd::optim::adam{.learning_rate = 3e-3},
                                         {.epochs = 8, .batch_size = 32});
  for (const auto& epoch : history) {
    REQUIRE(epoch.terms.size() == 2);
    CHECK(epoch.terms[0].name == "reverse_kl");
    CHECK(epoch.terms[1].name == "cross_entropy");
    CHECK(near(epoch.loss, 0.5 * epoch["reverse_kl"] + 0.25 * epoch["cross_entropy"], {.absolute = 1e-9}));
  }
  CHECK(history.back()["reverse_kl"] < 0.5 * history.front()["reverse_kl"]);
  CHECK(holds(message_of<kd::argument_error>([&] { (void)history[0]["kd"]; }), "kd::train::epoch_record",
              "(reverse_kl, cross_entropy)", "received kd"));
}

TEST_CASE("epoch_record: its line has the loss and its terms, a single one not twice", "[train]") {
  const kd::train::epoch_record one{.loss = 1.25, .terms = {{"cross_entropy", 1.25}}, .accuracy = 0.5};
  CHECK(kd::train::text_of(one) == "loss 1.2500, train accuracy 50.0 %");
  const kd::train::epoch_record two{.loss = 2, .terms = {{"kd", 1.53125}, {"cross_entropy", 1.5}}, .accuracy = 1};
  CHECK(kd::train::text_of(two) == "loss 2.0000 (kd 1.5312, cross_entropy 1.5000), train accuracy 100.0 %");
}

TEST_CASE("distil: cached logits follow the sample, not its place in the batch", "[train][distillation]") {
  device cpu(1);
  const auto set = quadrants();
  // The teacher's logits are the labels, so agreement with the teacher must equal the accuracy in every epoch.
  kd::tensor<float, 2> logits({set.train.size(), 4});
  for (std::size_t i = 0; i < set.train.size(); ++i) logits(i, set.train.labels[i]) = 5;
  tiny student(cpu, 2);
  for (const auto& epoch :
       kd::train::distil(student, logits, set, {}, kd::optim::adam{}, {.epochs = 2, .batch_size = 32}))
    CHECK(near(epoch.teacher_agreement, epoch.accuracy, {.absolute = 1e-12}));
}

TEST_CASE("distil: augmentation refuses cached logits and takes a live teacher", "[train][distillation]") {
  device cpu(1);
  const auto set = quadrants(64, 8);
  tiny teacher(cpu, 1), student(cpu, 2);
  const kd::train::options settings{.epochs = 1, .batch_size = 32, .augment = {.crop_padding = 1, .flip = true}};
  const kd::tensor<float, 2> logits({64, 4});
  const std::string message =
      message_of<kd::argument_error>([&] { kd::train::distil(student, logits, set, {}, kd::optim::adam{}, settings); });
  CHECK(holds(message, "augmentation", "teacher network"));
  CHECK(kd::train::distil(student, teacher, set, {}, kd::optim::adam{}, settings).size() == 1);
}

TEST_CASE("trainer: schedules change the learning rate by epoch or by step", "[train][schedule]") {
  device cpu(1);
  const auto set = quadrants(64, 8);
  const auto rates = [&](const kd::optim::schedule& s) {
    tiny net(cpu, 1);
    std::vector<double> out;
    for (const auto& e : kd::train::fit(net, set, kd::optim::adam{.learning_rate = 1e-3},
                                        {.epochs = 3, .batch_size = 16, .schedule = s}))
      out.push_back(e.learning_rate);
    return out;
  };
  CHECK(rates(kd::optim::schedule::constant()) == std::vector<double>{1e-3, 1e-3, 1e-3});
  const auto stairs = rates(kd::optim::schedule::step(1, 0.5));
  CHECK(near(stairs[2], 0.25e-3, {.absolute = 1e-12}));
  CHECK(rates(kd::optim::schedule::cosine(3))[2] < 0.5e-3);
  CHECK(rates(kd::optim::schedule::one_cycle(12)).back() < 1e-6);
}

TEST_CASE("trainer: a NaN is reported with step and row, and the weights stay as they were", "[train][errors]") {
  device cpu(1);
  const auto set = quadrants();
  kd::tensor<float, 2> logits({set.train.size(), 4});
  logits(17, 2) = std::numeric_limits<float>::quiet_NaN();
  tiny student(cpu, 2);
  const std::string message = message_of<kd::non_finite_error>([&] {
    kd::train::distil(student, logits, set, {}, kd::optim::adam{}, {.epochs = 1, .batch_size = 32, .name = "student"});
  });
  INFO(message);
  CHECK(holds(message, "student", "teacher logits have a NaN at row", "class 2 of step", "training sample 17;"));
  for (std::size_t i = 0; i < student.parameter_floats; ++i) REQUIRE(std::isfinite(student.parameters()[i]));

  tiny broken(cpu, 2);
  broken.parameters()[tiny::plan::tensors.back().offset + 3] = std::numeric_limits<float>::infinity();
  const std::string bias = message_of<kd::non_finite_error>(
      [&] { kd::train::fit(broken, set, kd::optim::adam{}, {.epochs = 1, .batch_size = 32}); });
  INFO(bias);
  CHECK(holds(bias, "student logits have a plus infinity", "class 3", "step 1"));
}

TEST_CASE("trainer: what does not fit is refused before anything is touched", "[train][errors]") {
  device cpu(1);
  auto set = quadrants(64, 8);
  tiny net(cpu, 1);
  const auto refused = [&](const kd::train::options& o, const auto& optimiser) {
    return message_of<kd::argument_error>([&] { kd::train::fit(net, set, optimiser, o); });
  };
  CHECK(holds(refused({.batch_size = 0}, kd::optim::adam{}), "batch_size must be at least 1, received 0"));
  CHECK(holds(refused({}, kd::optim::adam{.learning_rate = -1}), "learning_rate", "received -1"));
  CHECK(holds(refused({.schedule = kd::optim::schedule::cosine(0)}, kd::optim::adam{}), "period"));
  for (const float bad : {0.0f, -1.0f, std::numeric_limits<float>::quiet_NaN()}) {
    const kd::tensor<float, 2> logits({64, 4});
    const std::string message = message_of<kd::argument_error>(
        [&] { kd::train::distil(net, logits, set, {.temperature = bad}, kd::optim::adam{}, {}); });
    CHECK(holds(message, "temperature must be"));
  }
  const std::string weight = message_of<kd::argument_error>([&] {
    kd::train::distil(net, kd::tensor<float, 2>({64, 4}), set, {.kd_weight = std::numeric_limits<float>::quiet_NaN()},
                      kd::optim::adam{}, {});
  });
  CHECK(holds(weight, "kd_weight must be finite"));
  const std::string rows = message_of<kd::argument_error>([&] {
    kd::train::distil(net, kd::tensor<float, 2>({63, 4}), set, {}, kd::optim::adam{}, {});
  });
  CHECK(holds(rows, "teacher logits [64,4]", "[63,4]"));
  set.train.labels[5] = 4;
  CHECK(holds(refused({}, kd::optim::adam{}), "label 5 must be in [0, 4)", "received 4"));
  set.classes = 10;
  CHECK(holds(refused({}, kd::optim::adam{}), "4 classes", "received 10"));
  set.image = kd::image_shape(3, 9, 9);
  CHECK(holds(refused({}, kd::optim::adam{}), "[3,8,8]", "[3,9,9]"));
}

TEST_CASE("trainer: drop_last takes full batches alone, in steps, rates, terms and progress", "[train]") {
  device cpu(1);
  const auto set = quadrants(70, 8);
  const folder dir;
  const std::string shown = dir / "shown";
  std::FILE* const out = std::fopen(shown.c_str(), "w");
  REQUIRE(out != nullptr);
  const kd::train::options settings{
      .epochs = 3, .batch_size = 32, .drop_last = true, .schedule = kd::optim::schedule::one_cycle(6), .show = out};
  {
    tiny net(cpu, 1);
    kd::train::trainer<tiny, kd::cross_entropy, kd::optim::adam> one(net, set, {}, {}, settings);
    CHECK(one.steps_per_epoch() == 2);
    CHECK(one.start_epoch().samples() == 64);
    const auto history = kd::train::run(one);
    CHECK(net.batches_tracked == 6);
    CHECK(history.back().learning_rate < 1e-6);  // the end of the cycle
    // Accuracies are counts of 64 images, not of 70.
    for (const auto& epoch : history)
      CHECK(near(epoch.accuracy * 64, std::round(epoch.accuracy * 64), {.absolute = 1e-9}));
  }
  std::fclose(out);
  CHECK(holds(kd::io::read_file(shown), "epoch 3/3"));
  // A set without a remainder gives the same bits with and without it.
  const auto even = quadrants(64, 8);
  tiny a(cpu, 1), b(cpu, 1);
  kd::train::fit(a, even, kd::optim::adam{}, {.epochs = 2, .batch_size = 32, .drop_last = true});
  kd::train::fit(b, even, kd::optim::adam{}, {.epochs = 2, .batch_size = 32});
  CHECK(equal_weights(a, b));
}

TEST_CASE("run_together: each run gives the bits that it gives alone", "[train]") {
  device cpu(2);
  const auto set = quadrants(70, 8);
  using kd::train::options;
  using trainer = kd::train::trainer<tiny, kd::cross_entropy, kd::optim::adam>;
  const options shorter{.epochs = 1, .batch_size = 32, .seed = 1}, longer{.epochs = 3, .batch_size = 16, .seed = 2};
  tiny alone_a(cpu, 1), alone_b(cpu, 2), a(cpu, 1), b(cpu, 2);
  kd::train::fit(alone_a, set, kd::optim::adam{}, shorter);
  kd::train::fit(alone_b, set, kd::optim::adam{}, longer);
  trainer first(a, set, {}, {}, shorter), second(b, set, {}, {}, longer);
  kd::train::run_together(first, second);
  CHECK(first.history().size() == 1);
  CHECK(second.history().size() == 3);
  CHECK(equal_weights(a, alone_a));
  CHECK(equal_weights(b, alone_b));
}
