/// A network knows how its pixels are normalised: training, teachers, evaluation and files follow it.
#include <algorithm>
#include <limits>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/message.hpp"
#include "support/tiny.hpp"

using namespace kd_test;
using device = kd::cpu::device;
using tiny = kd::network<TinyNet, device>;

namespace {

/// pixel / 255, and nothing else.
constexpr kd::normalisation unit{{0, 0, 0}, {1, 1, 1}};

using gray_net = nn::sequential<kd::image<1, 8, 8>, nn::flatten, nn::linear<4>>;
using gray = kd::network<gray_net, device>;

/// The logits of the first images, whose pixels are normalised here, by hand.
template <class Network>
kd::tensor<float, 2> by_hand(Network& net, const std::vector<std::uint8_t>& images, std::size_t count,
                             const kd::normalisation& norm) {
  constexpr kd::shape in = Network::plan::input;
  float* x = net.input(count, false);
  for (std::size_t n = 0; n < count; ++n)
    for (std::size_t e = 0; e < in.size(); ++e) {
      const std::size_t c = e / in.pixels(), h = e / in.width % in.height, w = e % in.width;
      x[device::index(in, n, c, h, w)] =
          (static_cast<float>(images[n * in.size() + e]) / 255 - norm.mean[c]) / norm.std[c];
    }
  kd::tensor<float, 2> logits({count, Network::classes});
  net.device().to_rows(Network::plan::output, count, net.forward_infer(count), logits.data());
  return logits;
}

/// predict() gives what the network gives for pixels that are normalised by hand.
template <class Network>
comparison as_by_hand(Network& net, const kd::data::split& split, const kd::normalisation& norm, double tolerance) {
  const auto got = kd::train::predict(net, split.images), want = by_hand(net, split.images, split.size(), norm);
  return near(got.elements(), want.elements(), {.absolute = tolerance}, "logit");
}

}  // namespace

TEST_CASE("normalisation: a network is evaluated as it was trained, without being told again",
          "[train][normalisation]") {
  device cpu(2);
  const auto set = quadrants();
  tiny net(cpu, 1, unit), usual(cpu, 1);
  CHECK(net.pixels() == unit);
  CHECK(net.pixels_given());
  CHECK(usual.pixels() == kd::imagenet_normalisation);
  CHECK_FALSE(usual.pixels_given());
  // Logits of a fresh network are below 3; pixels are rounded a little differently.
  CHECK(as_by_hand(net, set.test, unit, 1e-4));
  CHECK(as_by_hand(usual, set.test, kd::imagenet_normalisation, 1e-4));
  CHECK(as_by_hand(net, set.test, kd::imagenet_normalisation, 1e-2).differs());

  kd::train::fit(net, set, kd::optim::adam{.learning_rate = 3e-3}, {.epochs = 8, .batch_size = 32});
  const double right = kd::train::evaluate(net, set.test).top1;
  CHECK(right >= 0.9);
  CHECK(right ==
        kd::train::evaluate_logits(by_hand(net, set.test.images, set.test.size(), unit), set.test.labels).top1);
}

TEST_CASE("normalisation: training follows the network's", "[train][normalisation]") {
  device cpu(1);
  const auto set = quadrants(64, 8);
  const auto first_loss = [&](const std::optional<kd::normalisation>& pixels) {
    tiny net(cpu, 1, pixels);
    return kd::train::fit(net, set, kd::optim::adam{}, {.epochs = 1, .batch_size = 64})[0].loss;
  };
  CHECK(first_loss({}) == first_loss(kd::imagenet_normalisation));
  // Batch norm right after the first convolution hides a scale, but not the border of a shifted image.
  CHECK(first_loss({}) != first_loss(unit));
}

TEST_CASE("normalisation: a teacher sees its own, cached and live", "[train][normalisation][distillation]") {
  device cpu(2);
  const auto set = quadrants();
  tiny teacher(cpu, 1, unit);
  kd::train::fit(teacher, set, kd::optim::adam{.learning_rate = 3e-3}, {.epochs = 8, .batch_size = 32});
  REQUIRE(kd::train::evaluate(teacher, set.train).top1 >= 0.9);
  tiny cached(cpu, 2), live(cpu, 2), known(cpu, 2);
  const kd::distillation loss{.temperature = 2};
  const kd::train::options settings{.epochs = 1, .batch_size = 32};
  const auto want = kd::train::distil(known, by_hand(teacher, set.train.images, set.train.size(), unit), set, loss,
                                      kd::optim::adam{}, settings);
  const auto got = kd::train::distil(cached, teacher, set, loss, kd::optim::adam{}, settings);
  CHECK(near(got[0]["kd"], want[0]["kd"], {.relative = 1e-4}));
  kd::train::trainer<tiny, kd::distillation, kd::optim::adam, kd::train::live_teacher<tiny>> run(
      live, set, loss, kd::optim::adam{}, settings, {&teacher});
  CHECK(near(kd::train::run(run)[0]["kd"], want[0]["kd"], {.relative = 1e-4}));
}

TEST_CASE("normalisation: files carry it, to the bit", "[train][normalisation][weights]") {
  device cpu(1);
  const auto set = quadrants(8, 8);
  const folder dir;
  const kd::normalisation odd{{0.1f, 1.0f / 3, -2e-3f}, {0.30000001f, 0x1.fffffep-3f, 7}};
  const tiny saved(cpu, 1, odd);
  kd::train::save_weights(saved, dir / "odd");
  tiny loaded(cpu, 2), agrees(cpu, 2, odd), differs(cpu, 2, unit), original(cpu, 1, odd);
  kd::train::load_weights(loaded, dir / "odd");
  CHECK(loaded.pixels() == odd);
  CHECK(std::ranges::equal(kd::train::predict(loaded, set.test.images).elements(),
                           kd::train::predict(original, set.test.images).elements()));
  kd::train::load_weights(agrees, dir / "odd");
  CHECK(equal_weights(agrees, saved));

  // What the network was told otherwise is an error, and it stays as it was.
  const std::string message = message_of<kd::file_error>([&] { kd::train::load_weights(differs, dir / "odd"); });
  INFO(message);
  CHECK(holds(message, dir / "odd", "mean [0.1,0.33333334,-0.002]", "std [0.3,0.24999999,7]", "mean [0,0,0]",
              "std [1,1,1]", "; give it"));
  CHECK(equal_weights(differs, tiny(cpu, 2)));
  CHECK(differs.pixels() == unit);

  // A second file replaces the first one's.
  kd::train::save_weights(tiny(cpu, 3), dir / "usual");
  kd::train::load_weights(loaded, dir / "usual");
  CHECK(loaded.pixels() == kd::imagenet_normalisation);
}

TEST_CASE("normalisation: a file that does not say it means what the network was given, or ImageNet's",
          "[train][normalisation][weights]") {
  device cpu(1);
  const folder dir;
  const tiny net(cpu, 1);
  kd::io::safetensors_writer foreign;
  for (const auto& info : tiny::plan::tensors)
    foreign.add(std::string(info.name.view()),
                std::vector<std::uint64_t>(info.spec.dims.begin(), info.spec.dims.begin() + info.spec.rank),
                net.read(info));
  foreign.write(dir / "foreign");
  tiny told(cpu, 2, unit), silent(cpu, 2);
  kd::train::load_weights(told, dir / "foreign");
  CHECK(told.pixels() == unit);
  CHECK(equal_weights(told, net));
  kd::train::save_weights(told, dir / "unit");
  kd::train::load_weights(silent, dir / "unit");
  kd::train::load_weights(silent, dir / "foreign");
  CHECK(silent.pixels() == kd::imagenet_normalisation);
}

TEST_CASE("normalisation: damaged metadata is refused", "[train][normalisation][weights][errors]") {
  device cpu(1);
  const folder dir;
  for (const char* text :
       {"", "{", "[]", "3", "{\"mean\":[0,0,0]}", "{\"mean\":[0,0,0],\"std\":[1,1]}", "{\"mean\":[0,0,0],\"std\":1}",
        "{\"mean\":[0,0,0],\"std\":[1,1,1,1]}", "{\"mean\":[0,0,0],\"std\":[1,0,1]}",
        "{\"mean\":[0,null,0],\"std\":[1,1,1]}", "{\"mean\":[0,\"0\",0],\"std\":[1,1,1]}",
        "{\"mean\":[1e300,0,0],\"std\":[1,1,1]}", "{\"mean\":[0,0,0],\"std\":[1,-1,1]}"}) {
    kd::io::safetensors_writer file;
    kd::train::add_weights(file, tiny(cpu, 1));
    file.metadata("kd.normalisation", text);
    file.write(dir / "damaged");
    tiny net(cpu, 2);
    const std::string message = message_of<kd::file_error>([&] { kd::train::load_weights(net, dir / "damaged"); });
    INFO(text << "\n" << message);
    CHECK(holds(message, dir / "damaged", "kd.normalisation"));
    CHECK(equal_weights(net, tiny(cpu, 2)));
    CHECK(net.pixels() == kd::imagenet_normalisation);
  }
}

TEST_CASE("normalisation: images of one channel need one entry", "[train][normalisation]") {
  device cpu(1);
  const folder dir;
  kd::data::dataset set = quadrants(32, 8);
  set.image = kd::image_shape(1, 8, 8);
  for (auto* split : {&set.train, &set.test}) split->images.resize(split->size() * 64);
  gray net(cpu, 1, kd::normalisation{{0.5f}, {0.25f}});
  CHECK(as_by_hand(net, set.test, {{0.5f}, {0.25f}}, 1e-4));
  CHECK(kd::train::fit(net, set, kd::optim::adam{}, {.epochs = 1, .batch_size = 16}).size() == 1);
  kd::train::save_weights(net, dir / "gray");
  const auto file = kd::io::safetensors_file::open(dir / "gray");
  REQUIRE(file.find_metadata("kd.normalisation") != nullptr);
  CHECK(*file.find_metadata("kd.normalisation") == "{\"mean\":[0.5],\"std\":[0.25]}");
  // Entries that are not used do not matter.
  gray same(cpu, 2, kd::normalisation{{0.5f, 9, 9}, {0.25f, -1, 0}});
  kd::train::load_weights(same, dir / "gray");
  CHECK(same.pixels() == net.pixels());
  gray other(cpu, 2, kd::normalisation{{0.25f}, {0.25f}});
  CHECK(holds(message_of<kd::file_error>([&] { kd::train::load_weights(other, dir / "gray"); }),
              "mean [0.5], std [0.25]", "mean [0.25], std [0.25]"));
}

TEST_CASE("normalisation: one that cannot be used is refused when the network is made",
          "[train][normalisation][errors]") {
  device cpu(1);
  const float infinite = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const kd::normalisation bad[] = {
      {{0.5f}, {0.5f}},
      {{0, 0, 0}, {1, 1, -1}},
      {{0, 0, 0}, {nan, 1, 1}},
      {{0, nan, 0}, {1, 1, 1}},
      {{0, 0, 0}, {1, 1, infinite}},
      {{infinite, 0, 0}, {1, 1, 1}},
      {{0, 0, 0}, {1e-45f, 1, 1}},
      {{1e30f, 0, 0}, {1e-20f, 1, 1}},
  };
  for (const kd::normalisation& norm : bad) {
    const std::string message = message_of<kd::argument_error>([&] { tiny net(cpu, 1, norm); });
    INFO(message);
    CHECK(holds(message, "kd::network", "3 channels", "positive standard deviation", "mean [", "std ["));
  }
  const std::string message = message_of<kd::argument_error>([&] { gray net(cpu, 1, kd::normalisation{}); });
  INFO(message);
  CHECK(holds(message, "1 channel must", "received mean [0], std [0]"));
  CHECK_NOTHROW(gray(cpu, 1, kd::normalisation{{0.5f}, {0.5f}}));
}
