#include "kd/io/metrics_log.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/folder.hpp"
#include "support/message.hpp"

using kd::io::json;
using kd::io::metrics_log;
using kd::io::read_file;

using kd_test::folder;
using kd_test::holds;
using kd_test::message_of;

namespace {

json line(int epoch, double loss) {
  json object;
  object["epoch"] = epoch;
  object["loss"] = loss;
  return object;
}

}  // namespace

TEST_CASE("metrics_log: one object per line, on the disk at once, NaN as null", "[io][metrics_log]") {
  const folder here;
  {
    metrics_log log = metrics_log::create(here / "log.jsonl");
    log.write(line(1, 0.5));
    CHECK(read_file(here / "log.jsonl") == "{\"epoch\":1,\"loss\":0.5}\n");
    log.write(line(2, std::numeric_limits<double>::quiet_NaN()));
    CHECK(read_file(here / "log.jsonl") == "{\"epoch\":1,\"loss\":0.5}\n{\"epoch\":2,\"loss\":null}\n");
    CHECK_THROWS_AS(log.write(json(1)), kd::argument_error);
  }
  CHECK(metrics_log::create(here / "log.jsonl").path() == here / "log.jsonl");
  CHECK(read_file(here / "log.jsonl").empty());
}

TEST_CASE("metrics_log: a second writer is refused and nothing is lost", "[io][metrics_log]") {
  const folder here;
  const std::string path = here / "log.jsonl";
  metrics_log log = metrics_log::create(path);
  log.write(line(1, 0.5));
  const std::string mine = "is in use by process " + std::to_string(::getpid());
  CHECK(holds(message_of<kd::file_error>([&] { metrics_log::create(path); }), path + ": ", mine));
  CHECK(holds(message_of<kd::file_error>([&] { metrics_log::resume(path); }), path + ": ", mine));
  CHECK(holds(message_of<kd::file_error>([&] { metrics_log::resume(path, std::vector<json>()); }), mine));
  log.write(line(2, 0.25));
  CHECK(read_file(path) == "{\"epoch\":1,\"loss\":0.5}\n{\"epoch\":2,\"loss\":0.25}\n");
}

TEST_CASE("metrics_log: a line cut by a crash is dropped on resume, a whole one without its newline stays",
          "[io][metrics_log]") {
  const folder here;
  const std::string whole = "{\"epoch\":1,\"loss\":0.5}\n", complete = "{\"epoch\":2,\"loss\":0.25}";
  for (std::size_t length = 0; length <= complete.size(); ++length) {
    const std::string partial = complete.substr(0, length);
    kd::io::write_file(here / "log.jsonl", whole + partial);
    metrics_log::resume(here / "log.jsonl").write(line(3, 0.125));
    CHECK(read_file(here / "log.jsonl") ==
          whole + (partial == complete ? complete + "\n" : "") + "{\"epoch\":3,\"loss\":0.125}\n");
  }
}

TEST_CASE("metrics_log: resumed for a run, it has the lines of the epochs that are done", "[io][metrics_log]") {
  const folder here;
  const std::string header = "{\"model\": \"LightNN\"}\n";  // a space that dump() would not write
  const auto of = [](int epoch) { return line(epoch, 1.0 / epoch).dump() + "\n"; };
  const std::vector<json> done{line(1, 1.0), line(2, 1.0 / 2), line(3, 1.0 / 3)};
  struct log_case {
    std::string before, after;
  };
  const std::vector<log_case> cases{
      {header + of(1) + of(2) + of(3) + of(4) + of(5), header + of(1) + of(2) + of(3)},  // to be done again
      {header + of(1) + of(3), header + of(1) + of(2) + of(3)},                          // lost in the middle
      {of(1) + header, of(1) + header + of(2) + of(3)},                                  // lost at the end
      {header + of(2) + of(3), header + of(1) + of(2) + of(3)},                          // lost at the beginning
      {header + of(1) + of(2) + of(3).substr(0, 10), header + of(1) + of(2) + of(3)},    // cut
      {header + of(1) + of(2) + of(3).substr(0, of(3).size() - 1), header + of(1) + of(2) + of(3)},
      {of(9) + of(1), of(1) + of(2) + of(3)},
      {of(3) + of(1), of(2) + of(3) + of(1)},  // out of order: what is there is not written again
      {"", of(1) + of(2) + of(3)},
  };
  for (const log_case& one : cases) {
    kd::io::write_file(here / "log.jsonl", one.before);
    metrics_log::resume(here / "log.jsonl", done).write(line(4, 8));
    INFO(one.before);
    CHECK(read_file(here / "log.jsonl") == one.after + line(4, 8).dump() + "\n");
  }
  metrics_log::resume(here / "log.jsonl", std::vector<json>());
  CHECK(read_file(here / "log.jsonl").empty());
  metrics_log::resume(here / "new.jsonl", done);
  CHECK(read_file(here / "new.jsonl") == of(1) + of(2) + of(3));
}

TEST_CASE("metrics_log: a full disk leaves no half line", "[io][metrics_log]") {
  const folder here;
  const std::string path = here / "log.jsonl", first = line(1, 0.5).dump() + "\n", third = line(3, 0.25).dump() + "\n";
  metrics_log log = metrics_log::create(path);
  log.write(line(1, 0.5));
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const rlimit small{first.size() + 10, before.rlim_max};  // as a disk with space for 10 bytes
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const std::string message = message_of<kd::file_error>([&] { log.write(line(2, 0.5)); });
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);
  CHECK(message.rfind(path + ": cannot write: ", 0) == 0);
  CHECK(read_file(path) == first);
  log.write(line(3, 0.25));
  CHECK(read_file(path) == first + third);
}

TEST_CASE("metrics_log: a FIFO gets the lines and is not read back", "[io][metrics_log]") {
  const folder here;
  const std::string path = here / "fifo";
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  const kd::io::file_descriptor reader(::open(path.c_str(), O_RDONLY | O_NONBLOCK));
  metrics_log::resume(path, std::vector<json>()).write(line(1, 1));
  char got[64] = {};
  CHECK(::read(reader.get(), got, sizeof got) > 0);
  CHECK(std::string(got) == line(1, 1).dump() + "\n");
  CHECK(here.entries() == 1);
}

TEST_CASE("metrics_log: resume without a file starts one", "[io][metrics_log]") {
  const folder here;
  metrics_log::resume(here / "log.jsonl").write(line(1, 1));
  CHECK(read_file(here / "log.jsonl") == "{\"epoch\":1,\"loss\":1}\n");
}

TEST_CASE("metrics_log: a file that is not a log is named with its line and left as it was", "[io][metrics_log]") {
  const folder here;
  for (const char* second : {"{\"epoch\":2,\n", "7\n", "\n"}) {
    const std::string content = std::string("{\"epoch\":1}\n") + second + "{\"epoch\":3}\n";
    kd::io::write_file(here / "log.jsonl", content);
    const std::string message = message_of<kd::file_error>([&] { metrics_log::resume(here / "log.jsonl"); });
    CHECK(message.rfind(here / "log.jsonl" + ":2: ", 0) == 0);
    CHECK(read_file(here / "log.jsonl") == content);
  }
  CHECK_THROWS_AS(metrics_log::create(here / "none/log.jsonl"), kd::file_error);
}
