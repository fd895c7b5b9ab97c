/// Other programs as child processes, without a shell.
#pragma once

#include <spawn.h>
#include <sys/wait.h>

#include <cerrno>
#include <string>
#include <vector>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"

extern "C" char** environ;

namespace kd::inline KD_ABI::io {

/// What run_program returns where the program cannot be started: the exit status that shells use for it.
inline constexpr int not_started = 127;

/// Runs a program of PATH with these arguments, the first of which is its name, in `folder` (empty: the folder of this
/// process), and waits. Returns its exit status, 128 + the signal that ended it, or not_started.
int run_program(const std::vector<std::string>& arguments, const std::string& folder = {});

namespace detail {

/// What is done in the child before the program begins.
class spawn_actions {
 public:
  spawn_actions() { ::posix_spawn_file_actions_init(&actions_); }
  ~spawn_actions() { ::posix_spawn_file_actions_destroy(&actions_); }
  spawn_actions(const spawn_actions&) = delete;
  spawn_actions& operator=(const spawn_actions&) = delete;

  bool change_folder(const std::string& folder) {
    return ::posix_spawn_file_actions_addchdir_np(&actions_, folder.c_str()) == 0;
  }
  const posix_spawn_file_actions_t* get() const { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_;
};

}  // namespace detail

inline int run_program(const std::vector<std::string>& arguments, const std::string& folder) {
  if (arguments.empty())
    reject_argument("kd::io::run_program", "the arguments must begin with the program's name", "none", "name it");
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  detail::spawn_actions actions;
  if (!folder.empty() && !actions.change_folder(folder)) return not_started;
  pid_t child = 0;
  if (::posix_spawnp(&child, argv[0], actions.get(), nullptr, argv.data(), environ) != 0) return not_started;
  int status = 0;
  while (::waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return not_started;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace kd::inline KD_ABI::io
