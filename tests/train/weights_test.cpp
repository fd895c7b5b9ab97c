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

namespace {

/// A file with the tensors of a network under `prefix`, and more.
template <class Network>
void write_renamed(const Network& net, const std::string& prefix, const std::string& path,
                   const std::vector<std::string>& more = {}) {
  kd::io::safetensors_writer file;
  for (const auto& info : Network::plan::tensors)
    file.add(prefix + std::string(info.name.view()), kd::train::detail::extents_of(info.spec), net.read(info));
  for (const std::string& name : more) file.add(name, {2}, std::vector<float>{1, 2});
  file.write(path);
}

/// A file whose batch-norm counters have these bytes.
void write_counters(const tiny& net, const std::string& path, const char* dtype, std::vector<std::uint64_t> shape,
                    std::span<const std::byte> bytes) {
  kd::io::safetensors_writer file;
  for (const auto& info : tiny::plan::tensors) {
    const std::string name(info.name.view());
    file.add(name, kd::train::detail::extents_of(info.spec), net.read(info));
    if (name.ends_with("running_var"))
      file.add(name.substr(0, name.size() - 11) + "num_batches_tracked", dtype, shape, bytes);
  }
  file.write(path);
}

}  // namespace

TEST_CASE("weights: counters of batch norm have any numeric dtype, and one element of any rank", "[train][weights]") {
  device cpu(1);
  const folder dir;
  const tiny source(cpu, 1);
  const auto tracked = [&]<class T>(const char* dtype, T value, std::vector<std::uint64_t> shape = {}) {
    write_counters(source, dir / "counters", dtype, std::move(shape), std::as_bytes(std::span(&value, 1)));
    tiny net(cpu, 2);
    net.batches_tracked = 3;
    kd::train::load_weights(net, dir / "counters");
    CHECK(std::memcmp(net.parameters(), source.parameters(), net.parameter_count * sizeof(float)) == 0);
    return net.batches_tracked;
  };
  CHECK(tracked("F16", std::uint16_t{0x4700}) == 7);
  CHECK(tracked("BF16", std::uint16_t{0x40E0}) == 7);
  CHECK(tracked("F32", 7.0f) == 7);
  CHECK(tracked("F64", 16'777'217.0) == 16'777'217);  // not a float
  CHECK(tracked("F64", 7.0, {1}) == 7);
  CHECK(tracked("I64", std::int64_t{7}, {1}) == 7);
  CHECK(tracked("I64", std::int64_t{7}, {1, 1}) == 7);
  CHECK(tracked("I32", std::int32_t{7}) == 7);
  CHECK(tracked("U64", std::uint64_t{7}) == 7);
  CHECK(tracked("I16", std::int16_t{7}) == 7);
  CHECK(tracked("I8", std::int8_t{7}) == 7);
  CHECK(tracked("U8", std::uint8_t{7}) == 7);
  CHECK(tracked("BOOL", std::uint8_t{1}) == 1);
  // No counts: half precision overflowed, and worse.
  CHECK(tracked("F16", std::uint16_t{0x7C00}) == 3);
  CHECK(tracked("F32", std::numeric_limits<float>::quiet_NaN()) == 3);
  CHECK(tracked("F32", -1.0f) == 3);
  CHECK(tracked("F64", 1e300) == 3);
  CHECK(tracked("I64", std::int64_t{-1}) == 3);

  const std::int64_t two[2] = {1, 2};
  write_counters(source, dir / "two", "I64", {2}, std::as_bytes(std::span(two)));
  tiny net(cpu, 2);
  CHECK(holds(message_of<kd::file_error>([&] { kd::train::load_weights(net, dir / "two"); }), "num_batches_tracked",
              "one element", "[2]"));
  CHECK(equal_weights(net, tiny(cpu, 2)));
}

TEST_CASE("weights: a prefix of all names is found, and stripped where it is asked for", "[train][weights]") {
  device cpu(1);
  const folder dir;
  const tiny source(cpu, 1);
  for (const std::string& prefix : std::vector<std::string>{"module.", "student.", "_orig_mod.", "model.module."}) {
    write_renamed(source, prefix, dir / "prefixed");
    tiny net(cpu, 2);
    const std::string message = message_of<kd::file_error>([&] { kd::train::load_weights(net, dir / "prefixed"); });
    INFO(message);
    CHECK(holds(message, "tensor \"0.weight\"", "all names begin with \"" + prefix + "\"",
                ".strip_prefix = \"" + prefix + "\""));
    CHECK(equal_weights(net, tiny(cpu, 2)));
    CHECK(kd::train::load_weights(net, dir / "prefixed", {.strip_prefix = prefix}).unexpected.empty());
    CHECK(equal_weights(net, source));
  }
  // As an average of weights saves it: a counter without the prefix.
  write_renamed(source, "module.", dir / "average", {"n_averaged"});
  tiny net(cpu, 2);
  const auto refused = [&](const kd::train::load_options& options) {
    return message_of<kd::file_error>([&] { kd::train::load_weights(net, dir / "average", options); });
  };
  CHECK(holds(refused({}), kd::text(tiny::plan::tensors.size(), " of ", tiny::plan::tensors.size() + 1),
              " names begin with \"module.\""));
  CHECK(
      holds(refused({.strip_prefix = "module."}), "\"n_averaged\" [2]", "does not belong", ".skip = {\"n_averaged\"}"));
  CHECK(holds(refused({.strip_prefix = "student."}), "no tensor's name begins with the prefix \"student.\""));
  CHECK(equal_weights(net, tiny(cpu, 2)));
  kd::train::load_weights(net, dir / "average", {.strip_prefix = "module.", .skip = {"n_averaged"}});
  CHECK(equal_weights(net, source));
  // The advice skips nothing of the network's own.
  for (const auto& [name, prefix] :
       {std::pair{"optimizer.0.8.weight", "optimizer."}, {"8.extra", "8.extra"}, {"8.aux.weight", "8.aux."}}) {
    write_renamed(source, "", dir / "more", {name});
    CHECK(holds(message_of<kd::file_error>([&] { kd::train::load_weights(net, dir / "more"); }), name,
                "does not belong", kd::text(".skip = {\"", prefix, "\"}")));
    kd::train::load_weights(net, dir / "more", {.skip = {prefix}});
  }
  // Two names that become one.
  write_renamed(source, "module.", dir / "twice", {"0.weight"});
  CHECK(holds(
      message_of<kd::file_error>([&] { kd::train::load_weights(net, dir / "twice", {.strip_prefix = "module."}); }),
      "\"module.0.weight\"", "\"0.weight\"", "one name"));
}

TEST_CASE("weights: a classifier of other classes is skipped, and keeps its initial values", "[train][weights]") {
  device cpu(1);
  const folder dir;
  const kd::network<TinyNetOf<1000>, device> source(cpu, 1);
  kd::train::save_weights(source, dir / "thousand");
  tiny net(cpu, 2);
  const tiny fresh(cpu, 2);
  CHECK(holds(message_of<kd::file_error>([&] { kd::train::load_weights(net, dir / "thousand"); }), "8.weight",
              "expected shape [4,128], found [1000,128]", ".skip = {\"8.\"}"));
  const kd::train::load_result left_out = kd::train::load_weights(net, dir / "thousand", {.skip = {"8."}});
  CHECK(left_out.skipped == std::vector<std::string>{"8.weight", "8.bias"});
  CHECK(left_out.missing.empty());
  CHECK(left_out.unexpected.empty());
  for (std::size_t i = 0; i < tiny::plan::tensors.size(); ++i) {
    const auto& info = tiny::plan::tensors[i];
    INFO(info.name.view());
    if (info.name.view().starts_with("8."))
      CHECK(net.read(info) == fresh.read(info));
    else
      CHECK(net.read(info) == source.read(decltype(source)::plan::tensors[i]));
  }
  for (const char* const bad : {"fc.", ""}) {
    const std::string message = message_of<kd::argument_error>([&] {
      kd::train::load_weights(net, dir / "thousand", {.skip = {"8.", bad}});
    });
    INFO(message);
    CHECK(holds(message, "skip must"));
  }
}

TEST_CASE("weights: not strict, and what one side lacks is listed", "[train][weights]") {
  device cpu(1);
  const folder dir;
  const tiny source(cpu, 1);
  kd::io::safetensors_writer some;
  for (const auto& info : tiny::plan::tensors)
    if (!info.name.view().starts_with("8."))
      some.add(std::string(info.name.view()), kd::train::detail::extents_of(info.spec), source.read(info));
  some.add("aux.weight", {2}, std::vector<float>{1, 2});
  some.write(dir / "some");
  tiny net(cpu, 2);
  CHECK(holds(message_of<kd::file_error>([&] { kd::train::load_weights(net, dir / "some"); }),
              "\"8.weight\" of shape [4,128] is missing"));
  CHECK(equal_weights(net, tiny(cpu, 2)));
  const kd::train::load_result left_out = kd::train::load_weights(net, dir / "some", {.strict = false});
  CHECK(left_out.skipped.empty());
  CHECK(left_out.missing == std::vector<std::string>{"8.weight", "8.bias"});
  CHECK(left_out.unexpected == std::vector<std::string>{"aux.weight"});
  CHECK(net.read(tiny::plan::tensors[0]) == source.read(tiny::plan::tensors[0]));
  // Shapes must agree all the same, and something must be there.
  const kd::network<TinyNetOf<5>, device> five(cpu, 1);
  kd::train::save_weights(five, dir / "five");
  CHECK(holds(message_of<kd::file_error>([&] { kd::train::load_weights(net, dir / "five", {.strict = false}); }),
              "8.weight", "found [5,128]"));
  write_renamed(source, "module.", dir / "module");
  CHECK(holds(message_of<kd::file_error>([&] { kd::train::load_weights(net, dir / "module", {.strict = false}); }),
              "none of the network's", ".strip_prefix = \"module.\""));
}

TEST_CASE("weights: a variance below zero is refused with tensor and place", "[train][weights][errors]") {
  device cpu(1);
  const folder dir;
  tiny broken(cpu, 1), net(cpu, 1);
  const tiny before(cpu, 1);
  for (const float bad : {-1.0f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    for (const auto& info : tiny::plan::tensors)
      if (info.name.view() == "1.running_var") {
        std::vector<float> values(8, 1.0f);
        values[3] = bad;
        broken.write(info, values.data());
      }
    kd::train::save_weights(broken, dir / "broken");
    const std::string message = message_of<kd::file_error>([&] { kd::train::load_weights(net, dir / "broken"); });
    INFO(message);
    CHECK(holds(message, dir / "broken", "\"1.running_var\": element 3", kd::text("found ", bad)));
    CHECK(equal_weights(net, before));
  }
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
