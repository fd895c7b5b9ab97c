#include "kd/io/file.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <thread>

#include "support/catch.hpp"
#include "support/folder.hpp"
#include "support/message.hpp"

using kd_test::folder;

namespace {

void write(const std::string& path, const std::string& content) { std::ofstream(path) << content; }

}  // namespace

TEST_CASE("read_file: missing file and folder are named", "[io][file]") {
  const folder here;
  CHECK(kd_test::message_of<kd::file_error>([&] {
          kd::io::read_file(here / "none");
        }).rfind(here / "none" + ": cannot read: No such file", 0) == 0);
  CHECK(kd_test::message_of<kd::file_error>([&] {
          kd::io::read_file(here.path());
        }).find("the path is a folder: name a file") != std::string::npos);
  write(here / "empty", "");
  CHECK(kd::io::read_file(here / "empty").empty());
}

TEST_CASE("read_exactly: an early end of file is an error", "[io][file]") {
  const folder here;
  write(here / "short", "abc");
  const auto file = kd::io::open_for_reading(here / "short");
  char to[8];
  CHECK(kd_test::message_of<kd::file_error>([&] {
          kd::io::read_exactly(file, here / "short", to, 8);
        }).find("expected 8 more bytes, found 3") != std::string::npos);
}

TEST_CASE("read_file: what has no size is read to its end", "[io][file]") {
  const folder here;
  const std::string fifo = here / "fifo", content(100'000, 'x');
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  std::thread writer([&] { write(fifo, content); });
  CHECK(kd::io::read_file(fifo) == content);
  writer.join();
  write(here / "one", "1");
  CHECK(kd::io::read_file(here / "one") == "1");
}

TEST_CASE("file_exists: links are followed, and a folder that cannot be searched is an error", "[io][file]") {
  const folder here;
  write(here / "file", "");
  std::filesystem::create_symlink("none", here / "dangling");
  CHECK(kd::io::file_exists(here / "file"));
  CHECK(kd::io::file_exists(here.path()));
  CHECK_FALSE(kd::io::file_exists(here / "none"));
  CHECK_FALSE(kd::io::file_exists(here / "file/none"));
  CHECK_FALSE(kd::io::file_exists(here / "dangling"));
  REQUIRE(::chmod(here.path().c_str(), 0) == 0);
  const bool root = ::geteuid() == 0;
  if (root) REQUIRE(::seteuid(65534) == 0);
  const std::string message = kd_test::message_of<kd::file_error>([&] { (void)kd::io::file_exists(here / "file"); });
  if (root) REQUIRE(::seteuid(0) == 0);
  REQUIRE(::chmod(here.path().c_str(), 0755) == 0);
  CHECK(message ==
        here / "file" +
            ": cannot read: Permission denied; grant the permission (chmod, chown) or choose another folder");
}

TEST_CASE("path_beside: the suffix follows the name, which is cut to 255 bytes with it", "[io][file]") {
  CHECK(kd::io::path_beside("a/b", ".lock") == "a/b.lock");
  CHECK(kd::io::path_beside("b", ".lock") == "b.lock");
  const std::string longest(250, 'n');
  CHECK(kd::io::path_beside("a/" + longest, ".lock") == "a/" + longest + ".lock");
  const std::string cut = kd::io::path_beside("a/" + longest + "1", ".lock");
  CHECK(cut.size() == 2 + 255);
  CHECK(cut.substr(0, 2 + 233) == "a/" + std::string(233, 'n'));
  CHECK(cut != kd::io::path_beside("a/" + longest + "2", ".lock"));
  CHECK(cut == kd::io::path_beside("a/" + longest + "1", ".lock"));
}
