#include "kd/cpu/processor_quota.hpp"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "kd/cpu/parallel.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"
#include "support/message.hpp"

using kd::cpu::processor_quota;

namespace {

/// A folder with a /proc and a /sys of its own.
class system_tree {
 public:
  explicit system_tree(const std::string& cgroups) { write("proc/self/cgroup", cgroups); }
  system_tree& write(const std::string& path, const std::string& content) {
    const std::filesystem::path file = folder_.path() / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << content;
    return *this;
  }
  /// A limit of version 1.
  system_tree& limit(const std::string& path, const std::string& quota, const std::string& period = "100000") {
    write("sys/fs/cgroup/" + path + "/cpu.cfs_quota_us", quota + "\n");
    return write("sys/fs/cgroup/" + path + "/cpu.cfs_period_us", period + "\n");
  }
  double quota() const { return processor_quota(folder_.path().string()); }

 private:
  kd_test::folder folder_;
};

}  // namespace

TEST_CASE("processor_quota: version 2, the group's own limit and those above it", "[cpu][quota]") {
  const std::string path = "0::/user.slice/user-1000.slice/app.scope\n", top = "sys/fs/cgroup/";
  CHECK(std::isinf(system_tree(path).quota()));
  CHECK(std::isinf(system_tree(path).write(top + "user.slice/cpu.max", "max 100000\n").quota()));
  CHECK(system_tree(path).write(top + "user.slice/user-1000.slice/app.scope/cpu.max", "150000 100000\n").quota() ==
        1.5);
  CHECK(system_tree(path).write(top + "user.slice/cpu.max", "50000 100000\n").quota() == 0.5);
  CHECK(system_tree(path)
            .write(top + "user.slice/cpu.max", "400000 100000\n")
            .write(top + "user.slice/user-1000.slice/cpu.max", "20000 10000\n")
            .write(top + "user.slice/user-1000.slice/app.scope/cpu.max", "max 100000\n")
            .quota() == 2);
  CHECK(std::isinf(system_tree(path).write(top + "system.slice/cpu.max", "50000 100000\n").quota()));  // another group
  // A container's own namespace: the path is /, or begins above what is seen.
  for (const char* inside : {"0::/\n", "0::/../other\n", "0::/..\n"})
    CHECK(system_tree(inside).write(top + "cpu.max", "300000 100000\n").quota() == 3);
}

TEST_CASE("processor_quota: version 1, where the controllers have folders of their own", "[cpu][quota]") {
  const std::string groups =
      "12:memory:/docker/abc\n5:cpuset:/\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n";
  CHECK(std::isinf(system_tree(groups).quota()));
  CHECK(system_tree(groups).limit("cpu,cpuacct/docker/abc", "150000").quota() == 1.5);
  CHECK(system_tree(groups).limit("cpu/docker", "25000", "50000").quota() == 0.5);
  CHECK(system_tree(groups).limit("cpu,cpuacct", "200000").quota() == 2);  // the path is the host's, the folder ours
  CHECK(std::isinf(system_tree(groups).limit("cpu,cpuacct/docker/abc", "-1").quota()));
  CHECK(std::isinf(system_tree(groups).limit("cpuset", "100000").limit("memory/docker/abc", "100000").quota()));
  CHECK(system_tree("1:cpu:/\n0::/\n").limit("cpu", "100000").quota() == 1);  // beside an empty version 2
}

TEST_CASE("processor_quota: what is missing or damaged is no limit", "[cpu][quota]") {
  CHECK(std::isinf(processor_quota("/nowhere")));
  for (const char* cgroups : {"", "\n", "0", "0:", "0::", "::", "4:cpu", "a:b:c:d\n\n"})
    CHECK(std::isinf(system_tree(cgroups).quota()));
  for (const char* limit : {"", "\n", "100000", "x 100000", "100000 x", "100000 0", "0 100000", "-5 100000"})
    CHECK(std::isinf(system_tree("0::/a\n").write("sys/fs/cgroup/a/cpu.max", limit).quota()));
  CHECK(system_tree("0::/a").write("sys/fs/cgroup/a/cpu.max", "100000 100000").quota() == 1);  // no newlines
}

TEST_CASE("parallel: as many threads as OpenMP, processors and quota allow, and never too many", "[cpu][parallel]") {
  using kd::cpu::parallel;
  const int usual = parallel::available();
  CHECK(usual >= 1);
  CHECK(usual <= std::max(processor_quota(), 1.0));
#if defined(_OPENMP)
  const int before = omp_get_max_threads();
  CHECK(usual <= omp_get_num_procs());
  omp_set_num_threads(1);  // as OMP_NUM_THREADS=1
  CHECK(parallel::available() == 1);
  omp_set_num_threads(5000);
  CHECK(parallel::available() >= usual);
  CHECK(parallel::available() <= omp_get_num_procs());
  omp_set_num_threads(before);
#else
  CHECK(usual == 1);
#endif
}

TEST_CASE("parallel: too few and too many threads are refused", "[cpu][parallel][errors]") {
  using kd::cpu::parallel;
  const auto refusal = [](int threads) {
    return kd_test::message_of<kd::argument_error>([&] { (void)parallel(threads); });
  };
  CHECK(parallel().threads == 1);
  CHECK(parallel(1).threads == 1);
  CHECK(parallel(parallel::most_threads).threads == parallel::most_threads);
  CHECK(refusal(0) == "kd::cpu::parallel: threads must be at least 1, received 0; pass --threads 1 or more");
  for (const int many : {parallel::most_threads + 1, 200000, std::numeric_limits<int>::max()})
    CHECK(kd_test::holds(refusal(many), "threads must be at most 1024, received " + std::to_string(many), "--threads"));
}
