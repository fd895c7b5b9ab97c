#include "kd/io/metrics_log.hpp"

#include <cstddef>
#include <filesystem>
#include <iterator>
#include <limits>
#include <string>

#include "support/catch.hpp"
#include "support/folder.hpp"

using kd::io::json;
using kd::io::metrics_log;
using kd::io::read_file;

using kd_test::folder;

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
  metrics_log log = metrics_log::create(here / "log.jsonl");
  log.write(line(1, 0.5));
  CHECK(read_file(here / "log.jsonl") == "{\"epoch\":1,\"loss\":0.5}\n");
  log.write(line(2, std::numeric_limits<double>::quiet_NaN()));
  CHECK(read_file(here / "log.jsonl") == "{\"epoch\":1,\"loss\":0.5}\n{\"epoch\":2,\"loss\":null}\n");
  CHECK_THROWS_AS(log.write(json(1)), kd::argument_error);
  CHECK(metrics_log::create(here / "log.jsonl").path() == here / "log.jsonl");
  CHECK(read_file(here / "log.jsonl").empty());
}

TEST_CASE("metrics_log: a line cut by a crash is dropped on resume", "[io][metrics_log]") {
  const folder here;
  const std::string whole = "{\"epoch\":1,\"loss\":0.5}\n";
  for (const char* partial : {"", "{", "{\"epoch\":2,\"lo", "{\"epoch\":2,\"loss\":0.25}"}) {
    kd::io::write_file(here / "log.jsonl", whole + partial);
    metrics_log::resume(here / "log.jsonl").write(line(2, 0.125));
    CHECK(read_file(here / "log.jsonl") == whole + "{\"epoch\":2,\"loss\":0.125}\n");
  }
}

TEST_CASE("metrics_log: lines after the checkpoint's epoch are dropped on resume", "[io][metrics_log]") {
  const folder here;
  {
    metrics_log log = metrics_log::create(here / "log.jsonl");
    json header;
    header["model"] = "LightNN";
    log.write(header);
    for (int epoch = 1; epoch <= 4; ++epoch) log.write(line(epoch, 1.0 / epoch));
  }
  metrics_log::resume(here / "log.jsonl", 2).write(line(3, 8));
  CHECK(read_file(here / "log.jsonl") ==
        "{\"model\":\"LightNN\"}\n{\"epoch\":1,\"loss\":1}\n{\"epoch\":2,\"loss\":0.5}\n{\"epoch\":3,\"loss\":8}\n");
  metrics_log::resume(here / "log.jsonl", 0).write(line(1, 9));
  CHECK(read_file(here / "log.jsonl") == "{\"model\":\"LightNN\"}\n{\"epoch\":1,\"loss\":9}\n");
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
    std::string message;
    try {
      metrics_log::resume(here / "log.jsonl", 1);
    } catch (const kd::file_error& e) {
      message = e.what();
    }
    CHECK(message.rfind(here / "log.jsonl" + ":2: ", 0) == 0);
    CHECK(read_file(here / "log.jsonl") == content);
  }
  CHECK_THROWS_AS(metrics_log::create(here / "none/log.jsonl"), kd::file_error);
}
