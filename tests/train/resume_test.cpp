#include "kd/train/resume.hpp"

#include <fstream>

#include "support/catch.hpp"
#include "support/message.hpp"
#include "support/tiny.hpp"

using namespace kd_test;
using device = kd::cpu::device;
using tiny = kd::network<TinyNet, device>;

TEST_CASE("resume: a run stopped at any epoch ends with the bits of one that never stopped", "[train][resume]") {
  device cpu(2);
  const auto set = quadrants();
  const folder dir;
  constexpr std::size_t epochs = 4;
  const auto check = [&](auto optimiser, const kd::optim::schedule& schedule) {
    const auto settings = [&](std::size_t count, const std::string& file) {
      return kd::train::options{.epochs = count,
                                .batch_size = 32,
                                .seed = 9,
                                .augment = {.crop_padding = 1, .flip = true},
                                .schedule = schedule,
                                .checkpoint = file.empty() ? "" : dir / file,
                                .log = file.empty() ? "" : dir / (file + ".jsonl")};
    };
    tiny whole(cpu, 1);
    const auto history = kd::train::fit(whole, set, optimiser, settings(epochs, ""));
    for (std::size_t stop = 1; stop < epochs; ++stop) {
      const std::string file = kd::text("stop", stop, decltype(optimiser)::name);
      {
        tiny first(cpu, 1);
        kd::train::fit(first, set, optimiser, settings(stop, file));
      }
      tiny second(cpu, 77);  // other initial weights: everything must come from the file
      const auto resumed = kd::train::fit(second, set, optimiser, settings(epochs, file));
      CHECK(equal_weights(whole, second));
      REQUIRE(resumed.size() == epochs);
      for (std::size_t e = 0; e < epochs; ++e) CHECK(resumed[e].loss == history[e].loss);
      std::ifstream log(dir / (file + ".jsonl"));
      std::size_t lines = 0;
      for (std::string line; std::getline(log, line);) ++lines;
      CHECK(lines == epochs);
    }
  };
  check(kd::optim::adam{}, kd::optim::schedule::constant());
  check(kd::optim::sgd{.learning_rate = 0.05, .momentum = 0.9}, kd::optim::schedule::cosine(4));
}

TEST_CASE("resume: other settings, another network and damage are refused, and the run stays as it was",
          "[train][resume][errors]") {
  device cpu(1);
  const auto set = quadrants(64, 8);
  const folder dir;
  const std::string file = dir / "state";
  const kd::train::options settings{.epochs = 1, .batch_size = 32, .checkpoint = file};
  {
    tiny net(cpu, 1);
    kd::train::fit(net, set, kd::optim::adam{}, settings);
  }
  tiny net(cpu, 5);
  const tiny untouched(cpu, 5);
  auto other = settings;
  other.epochs = 2;
  other.seed = 1;
  CHECK(holds(message_of<kd::file_error>([&] { kd::train::fit(net, set, kd::optim::adam{}, other); }), file,
              "other settings", "\"seed\":0", "\"seed\":1"));
  CHECK(holds(message_of<kd::file_error>([&] { kd::train::fit(net, set, kd::optim::adam{.beta1 = 0.8}, settings); }),
              "other settings"));
  kd::network<OtherNet, device> stranger(cpu, 1);
  CHECK(holds(message_of<kd::file_error>([&] { kd::train::fit(stranger, set, kd::optim::adam{}, settings); }), file,
              "tensor"));
  kd::train::save_weights(net, dir / "weights");
  auto weights = settings;
  weights.checkpoint = dir / "weights";
  CHECK(holds(message_of<kd::file_error>([&] { kd::train::fit(net, set, kd::optim::adam{}, weights); }),
              "no training state"));
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 100);
  CHECK(holds(message_of<kd::file_error>([&] { kd::train::fit(net, set, kd::optim::adam{}, settings); }), file));
  CHECK(equal_weights(net, untouched));
}
