// The same source for several instruction sets in one program; runs those that this machine has.
#include <cstdio>
#include <cstring>

#include "probe.hpp"

extern "C" kd_probe_result kd_probe_sse2(int threads);
extern "C" kd_probe_result kd_probe_avx(int threads);
extern "C" kd_probe_result kd_probe_avx2(int threads);
extern "C" kd_probe_result kd_probe_avx2_fma(int threads);
extern "C" kd_probe_result kd_probe_avx512f(int threads);
extern "C" kd_probe_result kd_probe_avx512(int threads);

static int failures = 0;

static void check(const char* name, bool supported, kd_probe_function probe) {
  if (!supported) {
    std::printf("%s: linked; not run, this machine lacks it\n", name);
    return;
  }
  static const kd_probe_result like = kd_probe_sse2(1);
  const kd_probe_result got = probe(2);
  const char* fault = kd_probe_fault(got, like);
  if (fault == nullptr && std::strcmp(got.instruction_set, name) != 0) fault = "compiled for another instruction set";
  std::printf("%s: %s\n", name, fault != nullptr ? fault : "works");
  failures += fault != nullptr;
}

int main() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2"), fma = __builtin_cpu_supports("fma");
  const bool avx512f = __builtin_cpu_supports("avx512f");
  check("sse2", true, kd_probe_sse2);
  check("avx", __builtin_cpu_supports("avx"), kd_probe_avx);
  check("avx2", avx2, kd_probe_avx2);
  check("avx2_fma", avx2 && fma, kd_probe_avx2_fma);
  check("avx512f", avx512f, kd_probe_avx512f);
  check("avx512",
        avx512f && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512vl"),
        kd_probe_avx512);
  return failures;
}
