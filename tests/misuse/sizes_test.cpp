/// Sizes that are zero, too large for the data, or too large for an address.
#include <kd/kd.hpp>

#include <limits>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/message.hpp"
#include "support/tiny.hpp"

using namespace kd_test;
using device = kd::cpu::device;
using tiny = kd::network<TinyNet, device>;

namespace {

constexpr std::size_t largest = std::numeric_limits<std::size_t>::max();

template <class Call>
std::string refused(const Call& call) {
  return message_of<kd::argument_error>(call);
}

/// 1x1 images reach batch norm: one value per channel and image.
using OnePixel = nn::sequential<kd::image<3, 8, 8>, nn::conv2d<4, 8>, nn::as<"last", nn::batch_norm2d<>>, nn::flatten,
                                nn::linear<4>>;

}  // namespace

TEST_CASE("misuse: a batch beyond the set is a batch of the set, with its bits and its memory", "[misuse][sizes]") {
  device cpu(1);
  const auto set = quadrants(50, 20);
  const auto trained = [&](std::size_t batch_size) {
    tiny net(cpu, 1);
    const auto history = kd::train::fit(net, set, kd::optim::adam{}, {.epochs = 2, .batch_size = batch_size});
    CHECK(history.size() == 2);
    const auto logits = kd::train::predict(net, set.test.images, batch_size);
    std::vector<float> all(net.parameters(), net.parameters() + net.parameter_floats);
    all.insert(all.end(), logits.elements().begin(), logits.elements().end());
    return all;
  };
  const auto want = trained(50);
  // Buffers of these many samples would be petabytes, or wrap to a few bytes.
  for (const std::size_t batch_size : {std::size_t{51}, std::size_t{1'000'000'000'000}, largest / 20 + 1,
                                       largest / 4 + 1, largest / 2 + 1, largest - 15, largest})
    CHECK(trained(batch_size) == want);
}

TEST_CASE("misuse: a batch of nothing", "[misuse][sizes]") {
  device cpu(1);
  tiny net(cpu, 1);
  const auto set = quadrants(50, 20);
  CHECK(holds(refused([&] { kd::train::fit(net, set, kd::optim::adam{}, {.batch_size = 0}); }),
              "batch_size must be at least 1, received 0", "pass 128"));
  CHECK(holds(refused([&] { (void)kd::train::predict(net, set.test.images, 0); }),
              "kd::train::predict: batch_size must be at least 1, received 0", "pass 128"));
  CHECK(holds(refused([&] { (void)net.input(0, true); }), "kd::network::input: batch must be at least 1, received 0"));
  CHECK(holds(refused([&] { (void)net.forward_infer(0); }), "kd::network::forward_infer", "received batch 0"));
}

TEST_CASE("misuse: memory that no address reaches is refused before it wraps", "[misuse][sizes]") {
  device cpu(1);
  tiny net(cpu, 1);
  for (const std::size_t batch : {largest, largest - 15, largest / 2 + 1, largest / 1024})
    CHECK(holds(refused([&] { net.reserve(batch, true); }), "kd::network::reserve: sizes must multiply to at most",
                kd::text(batch), "smaller batch_size"));
  for (const std::size_t size : {largest, largest / 4 + 1, largest / 8 + 1})
    CHECK(holds(refused([&] { (void)cpu.allocate<float>(size); }), "kd::cpu::buffer: sizes must multiply",
                kd::text(size, " * 4"), "smaller batch_size"));
  for (const std::array<std::size_t, 2> extents :
       {std::array{largest, std::size_t{1}}, std::array{largest / 2 + 2, std::size_t{2}},
        std::array{std::size_t{1} << 32, std::size_t{1} << 32}})
    CHECK(holds(refused([&] { (void)kd::tensor<float, 2>(extents); }), "kd::tensor: sizes must multiply",
                "check the extents"));
  CHECK(holds(refused([&] { (void)kd::data::epoch_order(largest / 4, 1, 0); }), "kd::data::epoch_order",
              "4294967295 samples", "split the set"));
  CHECK(holds(refused([&] { (void)kd::data::loader(largest, 128, 0); }), "kd::data::loader", "4294967295 samples",
              "split the set"));
  CHECK(holds(refused([&] { (void)kd::data::synthetic_shapes({.train = largest}); }), "kd::data::synthetic_shapes",
              "train must lie in [1, 10000000]", "default"));
}

// AddressSanitizer ends the program at a request of this size instead of refusing it.
#if !defined(__SANITIZE_ADDRESS__)
TEST_CASE("misuse: memory that is not there is refused with a remedy", "[misuse][sizes]") {
  device cpu(1);
  const std::size_t exbibyte = std::size_t{1} << 60;  // more than processors address
  CHECK(holds(message_of<kd::device_error>([&] { (void)cpu.allocate<std::byte>(exbibyte); }),
              "kd::cpu::buffer: no memory for 1152921504606846976 bytes", "smaller batch_size"));
}
#endif

TEST_CASE("misuse: a last batch of one image before batch norm is found before the first step", "[misuse][sizes]") {
  device cpu(1);
  kd::network<OnePixel, device> net(cpu, 1);
  const auto message = [&](std::size_t samples, const kd::train::options& settings) {
    const auto set = quadrants(samples, 4);
    return refused([&] { kd::train::fit(net, set, kd::optim::adam{}, settings); });
  };
  const std::vector<float> before(net.parameters(), net.parameters() + net.parameter_floats);
  const std::string last = message(33, {.epochs = 1, .batch_size = 16});
  INFO(last);
  CHECK(holds(last, "kd::train::trainer: every batch must have at least 2 images", "\"last\"", "[4,1,1]",
              "received 33 images in batches of 16", "set drop_last"));
  CHECK(before == std::vector<float>(net.parameters(), net.parameters() + net.parameter_floats));
  CHECK(holds(message(33, {.epochs = 1, .batch_size = 1}), "received 33 images in batches of 1", "larger batch_size"));
  CHECK(holds(message(1, {.epochs = 1}), "received 1 images", "larger batch_size"));
  CHECK(message(33, {.epochs = 1, .batch_size = 16, .drop_last = true}) == "nothing was thrown");
  CHECK(message(34, {.epochs = 1, .batch_size = 16}) == "nothing was thrown");
  tiny wider(cpu, 1);  // its batch norms have 64 values per channel and image
  const auto set = quadrants(33, 4);
  CHECK(kd::train::fit(wider, set, kd::optim::adam{}, {.epochs = 1, .batch_size = 16}).size() == 1);
}

TEST_CASE("misuse: drop_last that leaves no batch", "[misuse][sizes]") {
  device cpu(1);
  tiny net(cpu, 1);
  const auto set = quadrants(50, 4);
  CHECK(holds(refused([&] { kd::train::fit(net, set, kd::optim::adam{}, {.batch_size = 51, .drop_last = true}); }),
              "kd::data::loader: with drop_last, batch_size must be at most the 50 samples, received 51",
              "smaller batch_size"));
}

TEST_CASE("misuse: one_cycle shorter than the training is found before the first step", "[misuse][sizes]") {
  device cpu(1);
  tiny net(cpu, 1);
  const auto set = quadrants(64, 4);
  const std::vector<float> before(net.parameters(), net.parameters() + net.parameter_floats);
  const auto message = [&](double steps, kd::train::options settings) {
    settings.schedule = kd::optim::schedule::one_cycle(steps);
    return refused([&] { kd::train::fit(net, set, kd::optim::adam{}, settings); });
  };
  CHECK(holds(message(7, {.epochs = 4, .batch_size = 32}), "kd::optim::schedule", "4 epochs of 2 steps, received 7",
              "schedule::one_cycle(8)"));
  CHECK(before == std::vector<float>(net.parameters(), net.parameters() + net.parameter_floats));
  CHECK(holds(message(3, {.epochs = 2, .batch_size = 40}), "2 epochs of 2 steps, received 3"));
  CHECK(message(8, {.epochs = 4, .batch_size = 32}) == "nothing was thrown");
  CHECK(message(2, {.epochs = 2, .batch_size = 40, .drop_last = true}) == "nothing was thrown");
  CHECK(holds(message(0, {}), "kd::optim::schedule: one_cycle needs", "received 0", "epochs times batches"));
}

TEST_CASE("misuse: a crop that is black for certain", "[misuse][sizes]") {
  device cpu(1);
  tiny net(cpu, 1);
  const auto set = quadrants(50, 4);
  for (const std::size_t padding : {std::size_t{9}, std::size_t{1} << 31, largest})
    CHECK(holds(refused([&] { kd::train::fit(net, set, kd::optim::adam{}, {.augment = {.crop_padding = padding}}); }),
                "kd::train::trainer: crop_padding", "[3,8,8]", kd::text("received ", padding), "4 is usual"));
}
