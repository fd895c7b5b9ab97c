// Loads the libraries named on the command line, all at once, and uses kd in each.
#include <dlfcn.h>

#include <cstdio>
#include <vector>

#include "probe.hpp"

int main(int count, char** paths) {
  std::vector<kd_probe_function> probes;
  for (int i = 1; i < count; ++i) {
    // RTLD_GLOBAL: the libraries see each other's symbols, which is when copies get mixed.
    void* library = dlopen(paths[i], RTLD_NOW | RTLD_GLOBAL);
    void* symbol = library != nullptr ? dlsym(library, "kd_probe") : nullptr;
    if (symbol == nullptr) {
      std::printf("%s\n", dlerror());
      return 1;
    }
    probes.push_back(reinterpret_cast<kd_probe_function>(symbol));
  }
  if (probes.size() < 2) {
    std::printf("usage: two_libraries FIRST.so SECOND.so\n");
    return 2;
  }
  if (probes[0] == probes[1]) {
    std::printf("both libraries gave the same function\n");
    return 1;
  }
  const kd_probe_result first = probes[0](1);
  for (std::size_t i = 0; i < probes.size(); ++i) {
    const char* fault = kd_probe_fault(probes[i](2), first);
    std::printf("%s: %s\n", paths[i + 1], fault != nullptr ? fault : "works");
    if (fault != nullptr) return 1;
  }
}
