#include "kd/io/atomic_file.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <filesystem>
#include <iterator>
#include <string>

#include "support/catch.hpp"
#include "support/folder.hpp"
#include "support/message.hpp"

using kd_test::folder;

TEST_CASE("atomic_file: the file appears at commit and replaces the older one", "[io][atomic_file]") {
  const folder here;
  const std::string path = here / "weights";
  kd::io::write_file(path, "old");
  {
    kd::io::atomic_file file(path);
    file.write("new ");
    file.write("content");
    CHECK(kd::io::read_file(path) == "old");
    CHECK(here.entries() == 2);
    CHECK(::access((path + ".tmp-" + std::to_string(::getpid())).c_str(), F_OK) == 0);
    file.commit();
  }
  CHECK(kd::io::read_file(path) == "new content");
  CHECK(here.entries() == 1);
}

TEST_CASE("atomic_file: without commit the older file stays and the temporary goes", "[io][atomic_file]") {
  const folder here;
  const std::string path = here / "weights";
  kd::io::write_file(path, "old");
  { kd::io::atomic_file(path).write("half"); }
  CHECK(kd::io::read_file(path) == "old");
  CHECK(here.entries() == 1);
}

TEST_CASE("atomic_file: a temporary left by a crash is replaced", "[io][atomic_file]") {
  const folder here;
  const std::string path = here / "weights";
  kd::io::write_file(path + ".tmp-" + std::to_string(::getpid()), "a longer rest of a crashed write");
  kd::io::write_file(path, "new");
  CHECK(kd::io::read_file(path) == "new");
  CHECK(here.entries() == 1);
}

TEST_CASE("atomic_file: a full disk leaves the older file whole and says what to do", "[io][atomic_file]") {
  const folder here;
  const std::string path = here / "weights";
  kd::io::write_file(path, "old");
  // A limit on file sizes fails a write half way, as a full disk does.
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const rlimit small{100, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const std::string message =
      kd_test::message_of<kd::file_error>([&] { kd::io::write_file(path, std::string(1000, 'x')); });
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);
  CHECK(message.rfind(path + ": cannot write: File too large; ", 0) == 0);
  CHECK(kd::io::read_file(path) == "old");
  CHECK(here.entries() == 1);
  CHECK(kd::io::detail::remedy_of(ENOSPC).find("free some disk space") == 0);
}

TEST_CASE("atomic_file: without permission the message names file, reason and remedy", "[io][atomic_file]") {
  const folder here;
  REQUIRE(::chmod(here.path().c_str(), 0555) == 0);
  const bool root = ::geteuid() == 0;
  if (root) REQUIRE(::seteuid(65534) == 0);  // root may write anywhere
  const std::string message = kd_test::message_of<kd::file_error>([&] { kd::io::write_file(here / "weights", "new"); });
  if (root) REQUIRE(::seteuid(0) == 0);
  REQUIRE(::chmod(here.path().c_str(), 0755) == 0);
  CHECK(message ==
        here / "weights" +
            ": cannot write: Permission denied; grant the permission (chmod, chown) or choose another folder");
}

TEST_CASE("atomic_file: missing folder, file as folder, folder as file", "[io][atomic_file]") {
  const folder here;
  kd::io::write_file(here / "file", "x");
  REQUIRE(::mkdir((here / "sub").c_str(), 0755) == 0);
  CHECK(kd_test::message_of<kd::file_error>([&] { kd::io::write_file(here / "none/file", "x"); }) ==
        here / "none/file" + ": cannot write: No such file or directory; check the path, and create its folder first");
  CHECK(kd_test::message_of<kd::file_error>([&] {
          kd::io::write_file(here / "file/file", "x");
        }).find("is a file, not a folder") != std::string::npos);
  CHECK(kd_test::message_of<kd::file_error>([&] {
          kd::io::write_file(here / "sub", "x");
        }).find("cannot replace: Is a directory; ") != std::string::npos);
  CHECK(here.entries() == 2);
}

TEST_CASE("read_file: missing file and folder are named", "[io][atomic_file]") {
  const folder here;
  CHECK(kd_test::message_of<kd::file_error>([&] {
          kd::io::read_file(here / "none");
        }).rfind(here / "none" + ": cannot read: No such file", 0) == 0);
  CHECK(kd_test::message_of<kd::file_error>([&] {
          kd::io::read_file(here.path());
        }).find("the path is a folder: name a file") != std::string::npos);
  kd::io::write_file(here / "empty", "");
  CHECK(kd::io::read_file(here / "empty").empty());
}

TEST_CASE("read_exactly: an early end of file is an error", "[io][atomic_file]") {
  const folder here;
  kd::io::write_file(here / "short", "abc");
  const auto file = kd::io::open_for_reading(here / "short");
  char to[8];
  CHECK(kd_test::message_of<kd::file_error>([&] {
          kd::io::read_exactly(file, here / "short", to, 8);
        }).find("expected 8 more bytes, found 3") != std::string::npos);
}
