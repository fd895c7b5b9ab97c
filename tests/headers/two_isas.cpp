// The same source for three instruction sets in one program; runs those that this machine has.
#include <cstdio>
#include <cstring>

#include "probe.hpp"

extern "C" kd_probe_result kd_probe_baseline(int threads);
extern "C" kd_probe_result kd_probe_avx2(int threads);
extern "C" kd_probe_result kd_probe_avx512(int threads);

static int failures = 0;

static void check(const char* name, bool supported, kd_probe_function probe) {
  if (!supported) {
    std::printf("%s: linked; not run, this machine lacks it\n", name);
    return;
  }
  const kd_probe_result got = probe(2);
  const char* fault = kd_probe_fault(got, kd_probe_baseline(1));
  if (fault == nullptr && std::strcmp(got.instruction_set, name) != 0) fault = "compiled for another instruction set";
  std::printf("%s: %s\n", name, fault != nullptr ? fault : "works");
  failures += fault != nullptr;
}

int main() {
  __builtin_cpu_init();
  check("baseline", true, kd_probe_baseline);
  check("avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), kd_probe_avx2);
  check("avx512",
        __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512vl"),
        kd_probe_avx512);
  return failures;
}
