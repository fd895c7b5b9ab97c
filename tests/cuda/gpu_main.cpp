/// main of the tests that need a GPU. Without one they are skipped: exit code 77, which CTest knows. KD_REQUIRE_GPU=1
/// makes that a failure instead, where a GPU must be there.
#define CATCH_CONFIG_RUNNER
#include "support/catch.hpp"

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

int main(int count, char** words) {
  int devices = 0;
  const cudaError_t found = cudaGetDeviceCount(&devices);
  if (found != cudaSuccess || devices == 0) {
    const char* required = std::getenv("KD_REQUIRE_GPU");
    const bool failure = required != nullptr && std::string_view(required) == "1";
    std::printf("%s: no GPU: cudaGetDeviceCount says %d devices, %s (%s)\n", failure ? "FAILED" : "skipped", devices,
                cudaGetErrorName(found), cudaGetErrorString(found));
    return failure ? 1 : 77;
  }
  return Catch::Session().run(count, words);
}
