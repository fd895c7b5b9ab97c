/// How many processors the cgroups of this process allow it: what limits a container, and what no count of processors
/// shows.
#pragma once

#include <algorithm>
#include <cstdio>
#include <limits>
#include <string>
#include <string_view>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"

namespace kd::inline KD_ABI::cpu {

/// The CPU time per time of this process's cgroup and of those above it, the least of them: 1.5 is one and a half
/// processors; infinity where nothing limits it. Reads cpu.max of cgroup v2, and cpu.cfs_quota_us and cpu.cfs_period_us
/// of v1, below `root`, the folder that /proc and /sys are in.
///
/// Within a container the path that /proc/self/cgroup names may be the host's; those of its parts that do not exist
/// here are passed over, and the container's own limit is that of the topmost folder.
double processor_quota(const std::string& root = "");

namespace detail {

/// What a small file holds, or nothing.
inline std::string small_file(const std::string& path) {
  std::FILE* const file = std::fopen(path.c_str(), "re");
  if (file == nullptr) return {};
  std::string out(65536, '\0');
  out.resize(std::fread(out.data(), 1, out.size(), file));
  std::fclose(file);
  return out;
}

/// quota / period; infinity for "max", -1, or what is no limit.
inline double quota_of(const std::string& quota, const std::string& period) {
  double time = 0, per = 0;
  if (std::sscanf(quota.c_str(), "%lf", &time) != 1 || std::sscanf(period.c_str(), "%lf", &per) != 1 || !(time > 0) ||
      !(per > 0))
    return std::numeric_limits<double>::infinity();
  return time / per;
}

/// The least quota of the folders from `top` + `path` upwards to `top`.
inline double least_quota(const std::string& top, std::string path) {
  double least = std::numeric_limits<double>::infinity();
  while (true) {
    const std::string folder = top + path;
    const std::string both = small_file(folder + "/cpu.max");
    const std::size_t space = both.find(' ');
    if (space != std::string::npos) least = std::min(least, quota_of(both, both.substr(space)));
    const std::string quota = small_file(folder + "/cpu.cfs_quota_us");
    if (!quota.empty()) least = std::min(least, quota_of(quota, small_file(folder + "/cpu.cfs_period_us")));
    if (path.empty()) return least;
    path.resize(std::min(path.rfind('/'), path.size() - 1));
  }
}

}  // namespace detail

inline double processor_quota(const std::string& root) {
  double least = std::numeric_limits<double>::infinity();
  const std::string cgroups = detail::small_file(root + "/proc/self/cgroup"), top = root + "/sys/fs/cgroup";
  // A line: NUMBER:CONTROLLERS:PATH; version 2 names no controllers.
  for (std::string_view rest = cgroups; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string_view::npos || second == std::string_view::npos) continue;
    const std::string controllers(line.substr(first + 1, second - first - 1));
    std::string path(line.substr(second + 1));
    // Above the folder that this process sees as the topmost: only that one is seen from here.
    if (path == "/" || path.find("..") != std::string::npos) path.clear();
    if (controllers.empty()) {
      least = std::min({least, detail::least_quota(top, path), detail::least_quota(top + "/unified", path)});
    } else if (text(",", controllers, ",").find(",cpu,") != std::string::npos) {
      least = std::min(
          {least, detail::least_quota(text(top, "/", controllers), path), detail::least_quota(top + "/cpu", path)});
    }
  }
  return least;
}

}  // namespace kd::inline KD_ABI::cpu
