#include "kd/io/program.hpp"

#include <filesystem>
#include <string>

#include "kd/io/file.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"
#include "support/message.hpp"

using kd::io::run_program;

TEST_CASE("run_program: arguments arrive as they are, and the exit status comes back", "[io][program]") {
  const kd_test::folder here;
  const std::string odd = "two words; $HOME '\"";
  CHECK(run_program({"sh", "-c", "printf %s \"$1\" > \"$2\"; exit 3", "sh", odd, here / "out"}) == 3);
  CHECK(kd::io::read_file(here / "out") == odd);
  CHECK(run_program({"sh", "-c", "kill -TERM $$"}) == 128 + 15);
  CHECK(run_program({"kd-no-such-program"}) == kd::io::not_started);
  CHECK_THROWS_AS(run_program({}), kd::argument_error);
}

TEST_CASE("run_program: in a folder of any name, without CDPATH", "[io][program]") {
  const kd_test::folder here;
  for (const std::string name : {"plain", "-dash", "--", "two words", "'quoted'", "a\nb"}) {
    std::filesystem::create_directory(here / name);
    CHECK(run_program({"sh", "-c", "pwd > here"}, here / name) == 0);
    CHECK(std::filesystem::exists(here / name + "/here"));
  }
  CHECK(run_program({"true"}, here / "none") == kd::io::not_started);
}
