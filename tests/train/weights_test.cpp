#include "kd/train/weights.hpp"

#include <filesystem>
#include <fstream>
#include <limits>

#include "support/catch.hpp"
#include "support/message.hpp"
#include "support/tiny.hpp"

using namespace kd_test;
using device = kd::cpu::device;
using tiny = kd::network<TinyNet, device>;

TEST_CASE("weights: saved and loaded, every bit", "[train][weights]") {
  device cpu(1);
  const folder dir;
  tiny a(cpu, 1), b(cpu, 2);
  kd::train::fit(a, quadrants(64, 8), kd::optim::adam{}, {.epochs = 1, .batch_size = 32});
  kd::train::save_weights(a, dir / "a.safetensors");
  CHECK_FALSE(equal_weights(a, b));
  kd::train::load_weights(b, dir / "a.safetensors");
  CHECK(equal_weights(a, b));
}

TEST_CASE("weights: shapes and order of elements are PyTorch's", "[train][weights]") {
  device cpu(1);
  const folder dir;
  tiny net(cpu, 1);
  kd::train::save_weights(net, dir / "net");
  const auto file = kd::io::safetensors_file::open(dir / "net");
  const auto* conv = file.find("0.weight");
  REQUIRE(conv != nullptr);
  CHECK(conv->shape == std::vector<std::uint64_t>{8, 3, 3, 3});
  // Element [5,2,1,0] lies at [5][1][0][2] in kd's order.
  float value = 0;
  std::memcpy(&value, conv->data.data() + sizeof(float) * (((5 * 3 + 2) * 3 + 1) * 3 + 0), sizeof value);
  CHECK(value == net.parameters()[((5 * 3 + 1) * 3 + 0) * 3 + 2]);
  REQUIRE(file.find("1.num_batches_tracked") != nullptr);
  CHECK(file.find("1.num_batches_tracked")->dtype == "I64");
  CHECK(file.find("1.num_batches_tracked")->shape.empty());
}

TEST_CASE("weights: a checkpoint of another network is refused by name, and nothing changes",
          "[train][weights][errors]") {
  device cpu(1);
  const folder dir;
  tiny net(cpu, 1);
  const tiny before(cpu, 1);
  kd::network<OtherNet, device> other(cpu, 1);
  kd::train::save_weights(other, dir / "other");
  CHECK(holds(message_of<kd::file_error>([&] { kd::train::load_weights(net, dir / "other"); }), dir / "other",
              "0.weight"));
  // The right tensors and one too many.
  kd::io::safetensors_writer more;
  kd::train::add_weights(more, net);
  more.add("fc.weight", {2}, std::vector<float>{1, 2});
  more.write(dir / "more");
  CHECK(holds(message_of<kd::file_error>([&] { kd::train::load_weights(net, dir / "more"); }), "fc.weight", "[2]",
              "does not belong"));
  // One shape changed.
  kd::io::safetensors_writer reshaped;
  for (const auto& info : tiny::plan::tensors) {
    const std::string name(info.name.view());
    std::vector<std::uint64_t> shape{info.spec.dims.begin(),
                                     info.spec.dims.begin() + static_cast<long>(info.spec.rank)};
    if (name == "8.weight") std::swap(shape[0], shape[1]);
    reshaped.add(name, shape, net.read(info));
  }
  reshaped.write(dir / "reshaped");
  const std::string message = message_of<kd::file_error>([&] { kd::train::load_weights(net, dir / "reshaped"); });
  INFO(message);
  CHECK(holds(message, "8.weight", "[128,4]", "[4,128]"));
  CHECK(equal_weights(net, before));
}

TEST_CASE("weights: a NaN in a file is refused with tensor and place", "[train][weights][errors]") {
  device cpu(1);
  const folder dir;
  tiny broken(cpu, 1), net(cpu, 1);
  const tiny before(cpu, 1);
  broken.parameters()[tiny::plan::tensors.back().offset + 3] = std::numeric_limits<float>::quiet_NaN();
  kd::train::save_weights(broken, dir / "nan");
  const std::string message = message_of<kd::file_error>([&] { kd::train::load_weights(net, dir / "nan"); });
  INFO(message);
  CHECK(holds(message, "8.bias", "element 3 must be finite"));
  CHECK(equal_weights(net, before));
}

TEST_CASE("weights: an empty, cut or corrupted file is refused", "[train][weights][errors]") {
  device cpu(1);
  const folder dir;
  tiny net(cpu, 1);
  const tiny before(cpu, 1);
  const auto refused = [&](const std::string& name) {
    const std::string message = message_of<kd::file_error>([&] { kd::train::load_weights(net, dir / name); });
    INFO(message);
    CHECK(holds(message, dir / name));
    return message;
  };
  CHECK(holds(refused("missing"), "No such file"));
  std::ofstream(dir / "empty");
  CHECK(holds(refused("empty"), "at least 8 bytes"));
  kd::train::save_weights(net, dir / "good");
  std::filesystem::copy_file(dir / "good", dir / "cut");
  std::filesystem::resize_file(dir / "cut", std::filesystem::file_size(dir / "good") / 2);
  refused("cut");
  std::filesystem::copy_file(dir / "good", dir / "length");
  {
    std::fstream f(dir / "length", std::ios::in | std::ios::out | std::ios::binary);
    f.seekp(6);
    f.put('\x7f');
  }
  CHECK(holds(refused("length"), "header length"));
  CHECK(equal_weights(net, before));
}

TEST_CASE("weights: a folder that cannot be written is named, and an older file stays whole",
          "[train][weights][errors]") {
  device cpu(1);
  const folder dir;
  const tiny net(cpu, 1);
  CHECK(holds(message_of<kd::file_error>([&] { kd::train::save_weights(net, dir / "no/such/folder/w"); }),
              "no/such/folder"));
  kd::train::save_weights(net, dir / "w");
  std::ofstream(dir / "file") << "x";
  CHECK_THROWS_AS(kd::train::save_weights(net, dir / "file/w"), kd::file_error);
  tiny again(cpu, 2);
  kd::train::load_weights(again, dir / "w");
  CHECK(equal_weights(again, net));
}
