#include "kd/io/file_lock.hpp"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>

#include "support/catch.hpp"
#include "support/folder.hpp"
#include "support/message.hpp"

using kd::io::file_lock;
using kd_test::folder;
using kd_test::holds;

namespace {

std::string refusal(const std::string& path) {
  return kd_test::message_of<kd::file_error>([&] { file_lock(path, "the folder", "choose another"); });
}

}  // namespace

TEST_CASE("file_lock: held for the object's life, with a message that names the holder", "[io][file_lock]") {
  const folder here;
  const std::string path = here / "lock";
  {
    const file_lock lock(path, "the folder", "choose another");
    const std::string message = refusal(path);
    CHECK(message.rfind("the folder: is in use by process " + std::to_string(::getpid()) + " on ", 0) == 0);
    CHECK(holds(message, " since 20", " UTC", "; choose another"));
    if (std::filesystem::exists("/proc/self/cmdline"))
      CHECK(holds(message, kd::io::read_file("/proc/self/cmdline").c_str()));
  }
  CHECK(here.entries() == 0);
  CHECK(refusal(path) == "nothing was thrown");
}

TEST_CASE("file_lock: another process is refused until the holder ends, however it ends", "[io][file_lock]") {
  const folder here;
  const std::string path = here / "lock";
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const file_lock lock(path, "the folder", "choose another");
    if (::write(ready[1], "x", 1) == 1) ::pause();
    ::_exit(1);
  }
  REQUIRE(child > 0);
  char byte = 0;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  CHECK(holds(refusal(path), "is in use by process " + std::to_string(child) + " on "));
  REQUIRE(::kill(child, SIGKILL) == 0);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  CHECK(std::filesystem::exists(path));
  const file_lock lock(path, "the folder", "choose another");
  CHECK(holds(refusal(path), "is in use by process " + std::to_string(::getpid()) + " on "));
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_CASE("file_lock: of many processes at once one has the lock at any time", "[io][file_lock]") {
  const folder here;
  const std::string path = here / "lock", count = here / "count";
  std::ofstream(count) << 0;
  constexpr int processes = 4, rounds = 100;
  for (int p = 0; p < processes; ++p) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child > 0) continue;
    for (int round = 0; round < rounds;) {
      std::optional<file_lock> lock;
      try {
        lock.emplace(path, "the folder", "choose another");
      } catch (const kd::file_error&) {
        continue;
      }
      int value = -1;
      std::ifstream(count) >> value;
      std::ofstream(count) << value + 1;
      ++round;
    }
    ::_exit(0);
  }
  for (int p = 0; p < processes; ++p) REQUIRE(::wait(nullptr) > 0);
  int value = 0;
  std::ifstream(count) >> value;
  CHECK(value == processes * rounds);
  CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("file_lock: moved, it is held by the target alone", "[io][file_lock]") {
  const folder here;
  const std::string path = here / "lock";
  std::optional<file_lock> first(std::in_place, path, "the folder", "choose another");
  {
    const file_lock second(std::move(*first));
    first.reset();
    CHECK(holds(refusal(path), "is in use"));
  }
  CHECK(refusal(path) == "nothing was thrown");
}

TEST_CASE("file_lock: a file's lock lies beside it, and beside a link's target", "[io][file_lock]") {
  const folder here;
  std::filesystem::create_directory(here / "big");
  std::filesystem::create_symlink("big/state", here / "link");
  const auto refused = [&](const std::string& path) {
    return kd_test::message_of<kd::file_error>([&] { (void)file_lock::of(path); });
  };
  const file_lock lock = file_lock::of(here / "link");
  CHECK(std::filesystem::exists(here / "big/state.lock"));
  CHECK(refused(here / "link").rfind(here / "link: is in use by process ", 0) == 0);
  CHECK(holds(refused(here / "big/state"), "is in use by process ", "or name another file"));
  CHECK(refused(here / "other") == "nothing was thrown");
  CHECK(refused(here / std::string(255, 'n')) == "nothing was thrown");
  CHECK(refused(here / "none/state") ==
        here / "none/state: cannot write: No such file or directory; check the path, and create its folder first");
}

TEST_CASE("file_lock: many may write to a FIFO or a device", "[io][file_lock]") {
  const folder here;
  REQUIRE(::mkfifo((here / "fifo").c_str(), 0600) == 0);
  const file_lock first = file_lock::of(here / "fifo"), second = file_lock::of(here / "fifo");
  const file_lock third = file_lock::of("/dev/null"), fourth = file_lock::of("/dev/null");
  CHECK(here.entries() == 1);
}
