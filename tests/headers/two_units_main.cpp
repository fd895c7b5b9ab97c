#define KD_PROBE kd_probe
#include "probe.cpp"

#include <cstdio>
#include <cstring>

const char* other_unit_version();

int main() {
  const kd_probe_result one = kd_probe(1);
  const kd_probe_result two = kd_probe(2);
  const char* fault = kd_probe_fault(two, one);
  if (fault == nullptr && (one.first_loss != two.first_loss || one.last_loss != two.last_loss))
    fault = "one thread and two give different losses";
  if (fault == nullptr && std::strcmp(kd::version, other_unit_version()) != 0) fault = "the units' versions differ";
  std::printf("%s, %s, loss %.6f to %.6f: %s\n", kd::version, one.instruction_set, one.first_loss, one.last_loss,
              fault != nullptr ? fault : "works");
  return fault != nullptr;
}
