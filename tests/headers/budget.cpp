// budget SOURCE_DIR COMPILER FLAGS...: what every public header, the umbrella and the examples cost to compile, as a
// table; exit code 1 when a limit is passed. Seconds are processor time, which other programs on the machine do not
// change.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace fs = std::filesystem;

struct cost {
  std::string name;
  double seconds = 0;
  double mebibytes = 0;
  double limit_seconds = 0;  // 0: none
  bool compiled = false;
};

static constexpr double memory_limit_mebibytes = 2048;

// One compilation: processor seconds and peak memory of the largest process.
static cost compile(std::vector<std::string> command) {
  std::vector<char*> arguments;
  for (std::string& word : command) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    // The grandchild (cc1plus) is waited for by the driver, so that wait4 below sees both.
    execvp(arguments[0], arguments.data());
    std::perror(arguments[0]);
    _exit(127);
  }
  int status = 1;
  rusage used{};
  cost result;
  if (child < 0 || wait4(child, &status, 0, &used) != child) return result;
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  result.seconds = seconds(used.ru_utime) + seconds(used.ru_stime);
  result.mebibytes = static_cast<double>(used.ru_maxrss) / 1024;
  result.compiled = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  return result;
}

// The least of up to three compilations while over the limit: a measurement only ever errs upwards.
static cost measure(const std::string& name, const std::vector<std::string>& command, double limit_seconds) {
  cost best = compile(command);
  for (int again = 0; again < 2 && best.compiled && limit_seconds > 0 && best.seconds > limit_seconds; ++again) {
    const cost next = compile(command);
    best.seconds = std::min(best.seconds, next.seconds);
    best.mebibytes = std::min(best.mebibytes, next.mebibytes);
  }
  best.name = name;
  best.limit_seconds = limit_seconds;
  return best;
}

int main(int count, char** words) {
  if (count < 3) {
    std::printf("usage: budget SOURCE_DIR COMPILER FLAGS...\n");
    return 2;
  }
  const fs::path root = words[1];
  std::vector<std::string> base(words + 2, words + count);
  const fs::path scratch = fs::temp_directory_path() / ("kd_budget." + std::to_string(getpid()));
  fs::create_directories(scratch);
  const auto command = [&](const fs::path& source) {
    std::vector<std::string> all = base;
    all.insert(all.end(), {"-c", source.string(), "-o", (scratch / "out.o").string()});
    return all;
  };

  std::vector<cost> headers;
  for (const char* folder : {"include", "kernels"}) {
    if (!fs::exists(root / folder)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      if (entry.path().extension() != ".hpp") continue;
      const std::string name = fs::relative(entry.path(), root / folder).string();
      if (name.starts_with("kd/cuda/")) continue;  // these need the CUDA toolkit
      std::ofstream(scratch / "alone.cpp") << "#include \"" << name << "\"\n";
      headers.push_back(measure(name, command(scratch / "alone.cpp"), name == "kd/kd.hpp" ? 4 : 0));
    }
  }
  std::vector<cost> examples;
  if (fs::exists(root / "examples"))
    for (const auto& entry : fs::directory_iterator(root / "examples")) {
      if (entry.path().extension() != ".cpp") continue;
      const std::string name = "examples/" + entry.path().filename().string();
      examples.push_back(measure(name, command(entry.path()), name == "examples/quickstart.cpp" ? 20 : 0));
    }
  fs::remove_all(scratch);

  const auto dearer = [](const cost& a, const cost& b) { return a.seconds > b.seconds; };
  std::sort(headers.begin(), headers.end(), dearer);
  std::sort(examples.begin(), examples.end(), dearer);
  examples.insert(examples.end(), headers.begin(), headers.end());

  int failures = 0;
  std::printf("%8s %8s %8s  %s\n", "seconds", "limit", "MiB", "translation unit (a header: it alone)");
  for (const cost& unit : examples) {
    const char* fault = "";
    if (!unit.compiled)
      fault = "  DOES NOT COMPILE";
    else if (unit.limit_seconds > 0 && !(unit.seconds <= unit.limit_seconds))
      fault = "  OVER THE TIME LIMIT";
    else if (!(unit.mebibytes <= memory_limit_mebibytes))
      fault = "  OVER 2 GiB";
    failures += *fault != '\0';
    char limit[32] = "";
    if (unit.limit_seconds > 0) std::snprintf(limit, sizeof limit, "%.0f", unit.limit_seconds);
    std::printf("%8.2f %8s %8.0f  %s%s\n", unit.seconds, limit, unit.mebibytes, unit.name.c_str(), fault);
  }
  for (const char* wanted : {"kd/kd.hpp", "examples/quickstart.cpp"})
    if (std::none_of(examples.begin(), examples.end(), [&](const cost& unit) { return unit.name == wanted; })) {
      std::printf("%s is missing: its limit was not checked\n", wanted);
      ++failures;
    }
  std::printf("%zu translation units, %d over a limit or broken\n", examples.size(), failures);
  return failures != 0;
}
