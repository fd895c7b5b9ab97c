/// The files of whole runs: one run at a time has a checkpoint and a log, and the log has every epoch once.
#include "kd/train/fit.hpp"

#include <string>

#include "support/catch.hpp"
#include "support/message.hpp"
#include "support/tiny.hpp"

using namespace kd_test;
using device = kd::cpu::device;
using tiny = kd::network<TinyNet, device>;

namespace {

/// The epochs of a log's lines, "1 2 3 ".
std::string epochs_of(const std::string& log) {
  const std::string content = kd::io::read_file(log);
  std::string out;
  for (std::size_t begin = 0, end; (end = content.find('\n', begin)) != std::string::npos; begin = end + 1)
    out += kd::text(kd::io::json::parse(content.substr(begin, end - begin)).at("epoch").as_unsigned(), " ");
  return out;
}

}  // namespace

TEST_CASE("fit: a checkpoint or a log that is in use is refused, and the network stays as it was", "[train][fit]") {
  device cpu(1);
  const auto set = quadrants(64, 8);
  const folder dir;
  const kd::train::options settings{.epochs = 1, .batch_size = 32, .checkpoint = dir / "state", .log = dir / "log"};
  tiny net(cpu, 1);
  const tiny untouched(cpu, 1);
  const auto refusal = [&] {
    return message_of<kd::file_error>([&] { kd::train::fit(net, set, kd::optim::adam{}, settings); });
  };
  for (const std::string& file : {settings.checkpoint, settings.log}) {
    const kd::io::file_lock other = kd::io::file_lock::of(file);
    CHECK(holds(refusal(), file + ": is in use by process ", "name another file"));
  }
  CHECK(equal_weights(net, untouched));
  CHECK(refusal() == "nothing was thrown");
  CHECK(dir.entries() == 2);  // no lock stays
}

TEST_CASE("run_together: two runs with one checkpoint are refused", "[train][fit]") {
  device cpu(1);
  const auto set = quadrants(64, 8);
  const folder dir;
  const kd::train::options settings{.epochs = 1, .batch_size = 32, .checkpoint = dir / "state"};
  tiny a(cpu, 1), b(cpu, 2);
  kd::train::trainer<tiny, kd::cross_entropy, kd::optim::adam> first(a, set, {}, {}, settings),
      second(b, set, {}, {}, settings);
  CHECK(holds(message_of<kd::file_error>([&] { kd::train::run_together(first, second); }),
              dir / "state: is in use by process "));
  CHECK(dir.entries() == 0);
}

TEST_CASE("fit: an epoch whose log line found a full disk is logged on resume", "[train][fit]") {
  device cpu(1);
  const auto set = quadrants(64, 8);
  const folder dir;
  const auto settings = [&](std::size_t epochs) {
    return kd::train::options{.epochs = epochs, .batch_size = 32, .checkpoint = dir / "state", .log = dir / "log"};
  };
  const auto run = [&](std::size_t epochs) {
    tiny net(cpu, 1);
    return kd::train::fit(net, set, kd::optim::adam{}, settings(epochs));
  };
  run(1);
  // The state was written, and the disk was full when its line was to follow: the log lacks an epoch.
  const std::string log = kd::io::read_file(dir / "log");
  run(2);
  kd::io::write_file(dir / "log", log);
  run(3);
  CHECK(epochs_of(dir / "log") == "1 2 3 ");
  // Lines that are ahead of the state are written again, and not twice.
  std::filesystem::remove(dir / "state");
  run(2);
  CHECK(epochs_of(dir / "log") == "1 2 ");
}
