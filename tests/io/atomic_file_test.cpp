#include "kd/io/atomic_file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

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

TEST_CASE("atomic_file: temporaries of killed processes are removed, others are left", "[io][atomic_file]") {
  const folder here;
  const std::string path = here / "weights";
  const auto make = [&](const std::string& name) { std::ofstream(here / name) << "a rest"; };
  for (const std::string& dead :
       {std::string("weights.tmp-1"), std::string("weights.tmp-28812"), "weights.tmp-" + std::to_string(::getpid())})
    make(dead);
  const std::vector<std::string> others{"weights.tmp-",   "weights.tmp-1x", "weights.tmp-1.bak",
                                        "weights2.tmp-1", "aweights.tmp-1", "weights.tmp"};
  for (const std::string& other : others) make(other);
  std::filesystem::create_directory(here / "weights.tmp-2");
  make("weights.tmp-3");  // a living one
  const kd::io::file_descriptor held(::open((here / "weights.tmp-3").c_str(), O_RDWR));
  REQUIRE(::flock(held.get(), LOCK_EX) == 0);
  kd::io::write_file(path, "new");
  CHECK(kd::io::read_file(path) == "new");
  for (const std::string& other : others) CHECK(std::filesystem::exists(here / other));
  CHECK(std::filesystem::exists(here / "weights.tmp-2"));
  CHECK(std::filesystem::exists(here / "weights.tmp-3"));
  CHECK(here.entries() == static_cast<std::ptrdiff_t>(others.size()) + 3);
}

TEST_CASE("atomic_file: a process that is killed leaves one temporary, and the next write removes it",
          "[io][atomic_file]") {
  const folder here;
  const std::string path = here / "weights";
  const pid_t child = ::fork();
  if (child == 0) {
    kd::io::atomic_file file(path);
    file.write("half");
    ::raise(SIGKILL);
  }
  REQUIRE(child > 0);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  CHECK(std::filesystem::exists(path + ".tmp-" + std::to_string(child)));
  kd::io::write_file(path, "whole");
  CHECK(here.entries() == 1);
}

TEST_CASE("atomic_file: two writers of one path keep apart, and the last commit wins", "[io][atomic_file]") {
  const folder here;
  const std::string path = here / "weights";
  kd::io::atomic_file first(path), second(path);
  first.write("first");
  second.write("second");
  CHECK(here.entries() == 2);
  second.commit();
  CHECK(kd::io::read_file(path) == "second");
  first.commit();
  CHECK(kd::io::read_file(path) == "first");
  CHECK(here.entries() == 1);
}

TEST_CASE("atomic_file: a symbolic link stays and its target is replaced", "[io][atomic_file]") {
  const folder here;
  std::filesystem::create_directory(here / "big");
  kd::io::write_file(here / "big/weights", "old");
  std::filesystem::create_symlink("big/weights", here / "link");
  std::filesystem::create_symlink("link", here / "second");
  std::filesystem::create_symlink("big/none yet", here / "dangling");
  std::filesystem::create_symlink("circle", here / "circle");
  kd::io::write_file(here / "second", "new");
  kd::io::write_file(here / "dangling", "made");
  CHECK(std::filesystem::is_symlink(here / "link"));
  CHECK(std::filesystem::is_symlink(here / "second"));
  CHECK(std::filesystem::is_symlink(here / "dangling"));
  CHECK(kd::io::read_file(here / "big/weights") == "new");
  CHECK(kd::io::read_file(here / "big/none yet") == "made");
  CHECK(kd_test::holds(kd_test::message_of<kd::file_error>([&] { kd::io::write_file(here / "circle", "x"); }),
                       here / "circle: cannot write: ", "circle: correct them"));
  CHECK(here.entries() == 5);
}

TEST_CASE("atomic_file: the mode stays, and a new file has the usual one", "[io][atomic_file]") {
  const folder here;
  const std::string path = here / "weights";
  const auto mode = [&] {
    struct stat about {};
    REQUIRE(::stat(path.c_str(), &about) == 0);
    return about.st_mode & 07777;
  };
  const mode_t before = ::umask(022);
  kd::io::write_file(path, "old");
  CHECK(mode() == 0644);
  for (const mode_t one : {0600, 0666, 0640, 0755}) {
    REQUIRE(::chmod(path.c_str(), one) == 0);
    kd::io::write_file(path, "new");
    CHECK(mode() == one);
    const kd::io::atomic_file unfinished(path);
    struct stat about {};
    REQUIRE(::stat((path + ".tmp-" + std::to_string(::getpid())).c_str(), &about) == 0);
    CHECK((about.st_mode & 07777) == one);
  }
  ::umask(before);
}

TEST_CASE("atomic_file: a write-protected file is refused", "[io][atomic_file]") {
  const folder here;
  const std::string path = here / "weights";
  kd::io::write_file(path, "old");
  REQUIRE(::chmod(path.c_str(), 0444) == 0);
  CHECK(kd_test::message_of<kd::file_error>([&] { kd::io::write_file(path, "new"); }) ==
        path + ": cannot write: it is write-protected; make it writable (chmod u+w) or name another");
  CHECK(kd::io::read_file(path) == "old");
  CHECK(here.entries() == 1);
  // Another's file in a folder where everybody may rename: writing it in place would be refused as well.
  if (::geteuid() != 0) return;
  REQUIRE(::chmod(path.c_str(), 0644) == 0);
  REQUIRE(::chmod(here.path().c_str(), 0777) == 0);
  REQUIRE(::seteuid(65534) == 0);
  const std::string message = kd_test::message_of<kd::file_error>([&] { kd::io::write_file(path, "new"); });
  REQUIRE(::seteuid(0) == 0);
  CHECK(message == path +
                       ": cannot write: Permission denied; grant the permission (chmod, chown) or choose another "
                       "folder");
  CHECK(kd::io::read_file(path) == "old");
}

TEST_CASE("atomic_file: a FIFO, a device and an open file are written through", "[io][atomic_file]") {
  const folder here;
  const std::string fifo = here / "fifo", device = here / "null";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  {
    const kd::io::file_descriptor reader(::open(fifo.c_str(), O_RDONLY | O_NONBLOCK));
    REQUIRE(reader.is_open());
    kd::io::write_file(fifo, "through");
    char got[16] = {};
    CHECK(::read(reader.get(), got, sizeof got) == 7);
    CHECK(std::string(got) == "through");
  }
  CHECK(std::filesystem::is_fifo(fifo));
  // A node of its own, never the system's.
  if (::mknod(device.c_str(), S_IFCHR | 0666, ::makedev(1, 3)) == 0) {
    if (const kd::io::file_descriptor usable(::open(device.c_str(), O_WRONLY)); usable.is_open()) {
      kd::io::write_file(device, "nothing");
      CHECK(std::filesystem::is_character_file(device));
    }
    ::unlink(device.c_str());
  } else {
    WARN("no device node can be made here: that one is written through is not checked");
  }
  // A link of /proc stands for an open file, here one that has no name any more.
  const kd::io::file_descriptor open_file(::open((here / "file").c_str(), O_RDWR | O_CREAT | O_APPEND, 0600));
  REQUIRE(::unlink((here / "file").c_str()) == 0);
  const std::string name = "/proc/self/fd/" + std::to_string(open_file.get());
  if (::access(name.c_str(), F_OK) == 0) {
    kd::io::write_file(name, "through");
    char got[16] = {};
    CHECK(::pread(open_file.get(), got, sizeof got, 0) == 7);
    CHECK(std::string(got) == "through");
  }
  CHECK(here.entries() == 1);
}

TEST_CASE("atomic_file: names up to the 255 bytes of the file system", "[io][atomic_file]") {
  const folder here;
  for (std::size_t length = 240; length <= 255; ++length) {
    const std::string name(length, 'n');
    std::ofstream(kd::io::detail::temporary_path(here / name, 1)) << "a rest";
    kd::io::write_file(here / name, name);
    CHECK(kd::io::read_file(here / name) == name);
    CHECK(here.entries() == 1);
    REQUIRE(::unlink((here / name).c_str()) == 0);
  }
  // Two long names that differ at their end have temporaries of their own.
  const std::string one = here / (std::string(254, 'n') + "1"), two = here / (std::string(254, 'n') + "2");
  CHECK(kd::io::detail::temporary_path(one, 7) != kd::io::detail::temporary_path(two, 7));
  CHECK(kd_test::holds(
      kd_test::message_of<kd::file_error>([&] { kd::io::write_file(here / std::string(256, 'n'), "x"); }),
      "cannot write: File name too long; choose a shorter path"));
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
        }).find("cannot write: Is a directory; ") != std::string::npos);
  CHECK(here.entries() == 2);
}
