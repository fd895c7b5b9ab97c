// What compilations cost. Built when kd is configured; the launcher of kd's own compilations (kd_compile_cost.cmake).
//   compile_cost run [--memory=BYTES] [--cuda] -- COMPILER ARGUMENT...
//       compiles, and keeps the cost beside the object: OBJECT.cost. --memory: the address space that the compilation
//       may use. --cuda: what ptxas says of kernels goes to OBJECT.ptxas instead of to the terminal.
//   compile_cost table FOLDER...
//       the ten costliest translation units of these build folders.
//   compile_cost check FOLDER REFERENCE NAME=TIMES...
//       the table of all of them; exit code 1 where one takes more than 2 GiB, where a unit whose path ends with NAME
//       takes more than so many times what the unit does whose path ends with REFERENCE, and where there is none of
//       that name. Times and not seconds: machines differ.
// Seconds are processor time, which other programs change little; memory is the peak of the largest process.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace fs = std::filesystem;

namespace {

constexpr double memory_limit_mebibytes = 2048;

struct cost {
  double seconds = 0, mebibytes = 0;
  int exit_code = 1;
};

struct unit {
  std::string name;  // TARGET: PATH
  cost used;
  bool cuda = false;
  std::string folder;
  std::vector<std::string> command;
};

bool starts(const std::string& text, const char* with) { return text.rfind(with, 0) == 0; }
bool ends(const std::string& text, const std::string& with) {
  return text.size() >= with.size() && text.compare(text.size() - with.size(), with.size(), with) == 0;
}

/// Runs a command; `memory` 0: no limit; `output` -1: its output goes where this program's goes.
cost compile(const std::vector<std::string>& command, rlim_t memory, int output) {
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    const rlimit limit{memory, memory};
    if (memory != 0 && setrlimit(RLIMIT_AS, &limit) != 0) std::perror("compile_cost: setrlimit");
    if (output >= 0) {
      dup2(output, STDOUT_FILENO);
      dup2(output, STDERR_FILENO);
    }
    execvp(words[0], words.data());
    std::perror(words[0]);
    _exit(127);
  }
  int status = 0;
  rusage used{};
  pid_t ended = -1;
  // The compiler proper is waited for by its driver, so that this sees both.
  if (child > 0) do
      ended = wait4(child, &status, 0, &used);
    while (ended < 0 && errno == EINTR);
  cost result;
  if (ended != child) {
    std::perror("compile_cost");
    return result;
  }
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  result.seconds = seconds(used.ru_utime) + seconds(used.ru_stime);
  result.mebibytes = static_cast<double>(used.ru_maxrss) / 1024;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

/// The word after `option`, or nullptr.
std::string* argument_of(std::vector<std::string>& command, const char* option) {
  for (std::size_t i = 0; i + 1 < command.size(); ++i)
    if (command[i] == option) return &command[i + 1];
  return nullptr;
}

/// Copies what ptxas says of kernels from `from` to the file `kept`, and the rest to the terminal.
void sort_out(std::istream& from, const std::string& kept) {
  std::ofstream ptxas(kept);
  std::string line;
  while (std::getline(from, line)) {
    if (starts(line, "ptxas info") || (starts(line, "    ") && line.find(" bytes stack frame") != std::string::npos))
      ptxas << line << '\n';
    else
      std::fprintf(stderr, "%s\n", line.c_str());
  }
}

int run(int count, char** words) {
  rlim_t memory = 0;
  bool cuda = false;
  int at = 0;
  for (; at < count && std::strcmp(words[at], "--") != 0; ++at) {
    if (starts(words[at], "--memory="))
      memory = std::strtoull(words[at] + std::strlen("--memory="), nullptr, 10);
    else if (std::strcmp(words[at], "--cuda") == 0)
      cuda = true;
    else
      return std::fprintf(stderr, "compile_cost: unknown option '%s'\n", words[at]), 2;
  }
  std::vector<std::string> command(words + std::min(at + 1, count), words + count);
  if (command.empty()) return std::fprintf(stderr, "compile_cost: no compiler is named after --\n"), 2;
  const std::string* const object = argument_of(command, "-o");
  if (object == nullptr) return compile(command, memory, -1).exit_code;

  fs::remove(*object + ".cost");
  cost used;
  if (cuda) {
    const std::string said = *object + ".said";
    const int output = open(said.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (output < 0) return std::perror(said.c_str()), 1;
    used = compile(command, memory, output);
    close(output);
    std::ifstream from(said);
    sort_out(from, *object + ".ptxas");
    fs::remove(said);
  } else {
    used = compile(command, memory, -1);
  }
  if (used.exit_code == 0) {
    std::ofstream record(*object + ".cost", std::ios::binary);
    char line[64];
    std::snprintf(line, sizeof line, "%.2f %.0f %s\n", used.seconds, used.mebibytes, cuda ? "cuda" : "c++");
    record << line << fs::current_path().string() << '\0';
    for (const std::string& word : command) record << word << '\0';
  }
  return used.exit_code;
}

/// a/CMakeFiles/TARGET.dir/b/c.cpp.o.cost -> TARGET: b/c.cpp
std::string name_of(const fs::path& record) {
  std::string text = record.string();
  const std::string folder = "CMakeFiles/";
  const std::size_t target = text.find(folder), end = text.find(".dir/");
  text.resize(text.size() - std::strlen(".o.cost"));
  if (target == std::string::npos || end == std::string::npos) return text;
  std::string path = text.substr(end + std::strlen(".dir/"));
  while (starts(path, "__/")) path.erase(0, 3);
  return text.substr(target + folder.size(), end - target - folder.size()) + ": " + path;
}

void sort_by_cost(std::vector<unit>& units) {
  std::sort(units.begin(), units.end(), [](const unit& a, const unit& b) {
    return a.used.seconds != b.used.seconds ? a.used.seconds > b.used.seconds : a.name < b.name;
  });
}

/// The units of a build folder whose objects are there, the costliest first.
std::vector<unit> units_of(const fs::path& build) {
  std::vector<unit> units;
  for (const auto& entry : fs::recursive_directory_iterator(build)) {
    const std::string path = entry.path().string();
    if (!ends(path, ".o.cost") || !fs::exists(path.substr(0, path.size() - std::strlen(".cost")))) continue;
    std::ifstream record(path, std::ios::binary);
    unit one;
    std::string language, word;
    if (!(record >> one.used.seconds >> one.used.mebibytes >> language) || !std::getline(record, word) ||
        !std::getline(record, one.folder, '\0'))
      continue;
    one.cuda = language == "cuda";
    one.name = name_of(fs::relative(entry.path(), build));
    while (std::getline(record, word, '\0')) one.command.push_back(word);
    units.push_back(one);
  }
  sort_by_cost(units);
  return units;
}

void print_head() { std::printf("%8s %8s  %s\n", "seconds", "MiB", "translation unit"); }
void print(const unit& one, const std::string& fault) {
  std::printf("%8.2f %8.0f  %s%s%s\n", one.used.seconds, one.used.mebibytes, one.name.c_str(),
              one.cuda ? " (nvcc)" : "", fault.c_str());
}

int table(const std::vector<std::string>& builds) {
  std::vector<unit> units;
  double seconds = 0;
  for (const std::string& build : builds)
    for (unit& one : units_of(build)) {
      if (builds.size() > 1) one.name = fs::path(build).filename().string() + "  " + one.name;
      seconds += one.used.seconds;
      units.push_back(one);
    }
  sort_by_cost(units);
  print_head();
  for (std::size_t i = 0; i < std::min<std::size_t>(10, units.size()); ++i) print(units[i], "");
  std::printf("%8.0f           all %zu of them, in processor seconds\n", seconds, units.size());
  return units.empty();
}

/// Compiles once more, into a folder of its own.
cost compile_again(const unit& one) {
  const std::string scratch = (fs::temp_directory_path() / ("compile_cost." + std::to_string(getpid()))).string();
  std::vector<std::string> command = one.command;
  for (const char* option : {"-o", "-MF"})
    if (std::string* const path = argument_of(command, option)) *path = scratch + option;
  const fs::path here = fs::current_path();
  fs::current_path(one.folder);
  const cost used = compile(command, 0, -1);
  fs::current_path(here);
  for (const char* option : {"-o", "-MF"}) fs::remove(scratch + option);
  return used;
}

/// The least of what was measured and up to `times` more: beside other compilations a measurement errs upwards.
template <class Enough>
void measure_again(unit& one, int times, const Enough& enough) {
  for (int again = 0; again < times && !enough(one.used.seconds); ++again) {
    const cost next = compile_again(one);
    if (next.exit_code != 0) break;
    one.used.seconds = std::min(one.used.seconds, next.seconds);
    one.used.mebibytes = std::min(one.used.mebibytes, next.mebibytes);
  }
}

int check(const fs::path& build, const std::string& reference, const std::vector<std::string>& limits) {
  int faults = 0;
  std::vector<unit> units = units_of(build);
  double unit_of_time = 0;
  for (unit& one : units)
    if (!one.cuda && ends(one.name, reference)) {
      measure_again(one, 2, [](double) { return false; });
      unit_of_time = one.used.seconds;
    }
  if (!(unit_of_time > 0)) {
    std::printf("%s: no such translation unit was compiled here\n", reference.c_str());
    ++faults;
  }
  std::vector<bool> met(limits.size());
  print_head();
  for (unit& one : units) {
    std::string fault;
    for (std::size_t i = 0; i < limits.size(); ++i) {
      const std::size_t equals = limits[i].rfind('=');
      if (one.cuda || equals == std::string::npos || !ends(one.name, limits[i].substr(0, equals))) continue;
      met[i] = true;
      const double limit = unit_of_time * std::strtod(limits[i].c_str() + equals + 1, nullptr);
      const auto holds = [&](double seconds) { return seconds <= limit; };
      measure_again(one, 2, holds);
      if (!holds(one.used.seconds))
        fault = "  OVER THE LIMIT OF " + limits[i].substr(equals + 1) + " TIMES " + reference;
    }
    if (!one.cuda && !(one.used.mebibytes <= memory_limit_mebibytes)) fault += "  OVER 2 GiB";
    faults += !fault.empty();
    print(one, fault);
  }
  for (std::size_t i = 0; i < limits.size(); ++i)
    if (!met[i]) {
      std::printf("%s: no such translation unit was compiled here\n", limits[i].c_str());
      ++faults;
    }
  std::printf("%zu translation units, %d faults\n", units.size(), faults);
  return faults != 0;
}

}  // namespace

int main(int count, char** words) {
  try {
    const std::string verb = count > 2 ? words[1] : "";
    if (verb == "run") return run(count - 2, words + 2);
    if (verb == "table") return table(std::vector<std::string>(words + 2, words + count));
    if (verb == "check" && count > 3)
      return check(words[2], words[3], std::vector<std::string>(words + 4, words + count));
  } catch (const std::exception& e) {
    std::fprintf(stderr, "compile_cost: %s\n", e.what());
    return 1;
  }
  std::fprintf(stderr, "usage: compile_cost run|table|check ...; the head of compile_cost.cpp says how\n");
  return 2;
}
