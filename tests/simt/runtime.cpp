// The pretended machine, its memory and launches.
#define KD_SIMT_RUNTIME
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <utility>

#include "memory.hpp"
#include "operations.hpp"
#include "simt.hpp"

namespace simt {

void drop_captures();

namespace {

device_state machine;
cudaError_t last_error = cudaSuccess;

struct injection {
  cudaError_t code;
  int later;
};
std::map<std::string, injection, std::less<>> injected;
std::map<const void*, int> most_dynamic;  // bytes of dynamic shared memory that a kernel has asked for

constexpr int default_dynamic = 48 * 1024;
constexpr int most_shared = 227 * 1024;

cudaError_t state_of_machine() {
  if (machine.driver_version < CUDART_VERSION) return cudaErrorInsufficientDriver;
  if (machine.devices == 0) return cudaErrorNoDevice;
  return cudaSuccess;
}

cudaError_t injection_for(const char* name) {
  const auto found = injected.find(std::string_view(name));
  if (found == injected.end()) return cudaSuccess;
  if (found->second.later-- > 0) return cudaSuccess;
  const cudaError_t code = found->second.code;
  injected.erase(found);
  return code;
}

[[noreturn]] void reject_copy(const char* call, const char* rule, const void* address, std::size_t bytes) {
  char text[160];
  std::snprintf(text, sizeof text, "%s: %s; received %p, %zu bytes", call, rule, address, bytes);
  throw error(fault::out_of_bounds, text);
}

void check_ends(const char* call, const void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  const auto check = [&](const void* address, bool device) {
    if (device && !on_device(address, bytes))
      reject_copy(call, "the range must lie in one live device buffer", address, bytes);
    if (!device && find_device(address) != nullptr) reject_copy(call, "host memory is expected", address, bytes);
  };
  check(to, to_device);
  if (from != nullptr) check(from, from_device);
}

cudaError_t copy(const char* call, void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                 cudaStream_t stream) {
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) return answer(cudaErrorInvalidMemcpyDirection);
  if (bytes == 0) return cudaSuccess;
  if (to == nullptr || from == nullptr) return answer(cudaErrorInvalidValue);
  if (kind == cudaMemcpyDefault) {
    const bool to_device = find_device(to) != nullptr, from_device = find_device(from) != nullptr;
    kind = to_device ? (from_device ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice)
                     : (from_device ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost);
  }
  check_ends(call, to, from, bytes, kind);
  const std::string name = call;
  const auto move = [=](const void* source) {
    check_ends(name.c_str(), to, source, bytes, kind);
    std::memmove(to, source, bytes);
  };
  // Pageable memory is read at the call, unless a graph will read it at every launch.
  if (kind == cudaMemcpyHostToDevice && !is_pinned(from) && !is_capturing(stream)) {
    const char* first = static_cast<const char*>(from);
    const auto snapshot = std::make_shared<std::vector<char>>(first, first + bytes);
    return put(stream, [=] { move(snapshot->data()); });
  }
  return put(stream, [=] { move(from); });
}

cudaError_t fill(const char* call, void* memory, int byte, std::size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  check_ends(call, memory, nullptr, bytes, cudaMemcpyHostToDevice);
  const std::string name = call;
  return put(stream, [=] {
    check_ends(name.c_str(), memory, nullptr, bytes, cudaMemcpyHostToDevice);
    std::memset(memory, byte, bytes);
  });
}

// Memory is released when nothing can use it any more. In a destructor during an error, what waits is dropped.
void wait_before_release() {
  try {
    if (std::uncaught_exceptions() > 0)
      drop_all();
    else
      run_all();
  } catch (...) {
    keep_error(std::current_exception());
  }
}

}  // namespace

device_state& device() { return machine; }

void reset_device() {
  machine = {};
  injected.clear();
  last_error = cudaSuccess;
  drop_captures();
  drop_all();
}

void fail_next(const char* call, cudaError_t code, int later) { injected[call] = {code, later}; }

cudaError_t answer(cudaError_t code) {
  if (code != cudaSuccess) last_error = code;
  return code;
}

cudaError_t begin_call(const char* name) {
  if (const cudaError_t code = injection_for(name); code != cudaSuccess) return answer(code);
  return answer(state_of_machine());
}

cudaError_t launch(launch_shape shape, cudaStream_t stream, const void* function, std::function<void()> body) {
  if (const cudaError_t code = begin_call("cudaLaunchKernelEx"); code != cudaSuccess) return code;
  if (machine.major < machine.oldest_major) return answer(cudaErrorNoKernelImageForDevice);
  if (shape.name.empty()) shape.name.push_back('?');
  check_shape(shape);
  const auto asked = most_dynamic.find(function);
  if (shape.shared_bytes > static_cast<std::size_t>(asked == most_dynamic.end() ? default_dynamic : asked->second))
    return answer(cudaErrorInvalidValue);
  return put(stream, [shape = std::move(shape), body = std::move(body)] { run_kernel(shape, body); });
}

cudaError_t enqueue(cudaStream_t stream, const char* name, std::function<void()> work) {
  if (const cudaError_t code = begin_call(name); code != cudaSuccess) return code;
  return put(stream, std::move(work));
}

}  // namespace simt

using namespace simt;

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  if (const cudaError_t code = begin_call("cudaGetDeviceCount"); code != cudaSuccess) return code;
  *count = machine.devices;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (const cudaError_t code = begin_call("cudaSetDevice"); code != cudaSuccess) return code;
  return device == 0 ? cudaSuccess : answer(cudaErrorInvalidDevice);
}
cudaError_t cudaGetDevice(int* device) {
  if (const cudaError_t code = begin_call("cudaGetDevice"); code != cudaSuccess) return code;
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (const cudaError_t code = begin_call("cudaGetDeviceProperties"); code != cudaSuccess) return code;
  if (device != 0) return answer(cudaErrorInvalidDevice);
  cudaDeviceProp p{};
  std::snprintf(p.name, sizeof p.name, "emulated device");
  p.totalGlobalMem = machine.memory_bytes;
  p.sharedMemPerBlock = default_dynamic;
  p.sharedMemPerBlockOptin = most_shared;
  p.sharedMemPerMultiprocessor = 228 * 1024;
  p.reservedSharedMemPerBlock = 1024;
  p.regsPerBlock = p.regsPerMultiprocessor = 65536;
  p.warpSize = warpSize;
  p.maxThreadsPerBlock = 1024;
  p.maxThreadsPerMultiProcessor = 2048;
  p.maxThreadsDim[0] = p.maxThreadsDim[1] = 1024;
  p.maxThreadsDim[2] = 64;
  p.maxGridSize[0] = 0x7fffffff;
  p.maxGridSize[1] = p.maxGridSize[2] = 65535;
  p.major = machine.major;
  p.minor = machine.minor;
  p.multiProcessorCount = machine.multiprocessors;
  p.l2CacheSize = 50 << 20;
  p.unifiedAddressing = 1;
  p.asyncEngineCount = 1;
  *properties = p;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (const cudaError_t code = begin_call("cudaDeviceGetAttribute"); code != cudaSuccess) return code;
  if (device != 0) return answer(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = 1024;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = default_dynamic;
      break;
    case cudaDevAttrWarpSize:
      *value = warpSize;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = machine.multiprocessors;
      break;
    case cudaDevAttrL2CacheSize:
      *value = 50 << 20;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = 2048;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = machine.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = machine.minor;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = 228 * 1024;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = most_shared;
      break;
    default:
      return answer(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = machine.driver_version;
  return answer(injection_for("cudaDriverGetVersion"));
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return answer(injection_for("cudaRuntimeGetVersion"));
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  if (const cudaError_t code = begin_call("cudaMemGetInfo"); code != cudaSuccess) return code;
  *total = machine.memory_bytes;
  *free = machine.memory_bytes - std::min(machine.memory_bytes, device_bytes_in_use());
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  if (const cudaError_t code = begin_call_outside_capture("cudaDeviceSynchronize"); code != cudaSuccess) return code;
  run_all();
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  if (const cudaError_t code = begin_call_outside_capture("cudaMalloc"); code != cudaSuccess) return code;
  *memory = nullptr;
  if (bytes == 0) return cudaSuccess;
  *memory = allocate_device(bytes, machine.memory_bytes);
  return *memory != nullptr ? cudaSuccess : answer(cudaErrorMemoryAllocation);
}
cudaError_t cudaFree(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  if (const cudaError_t code = begin_call_outside_capture("cudaFree"); code != cudaSuccess) return code;
  wait_before_release();
  return free_device(memory) ? cudaSuccess : answer(cudaErrorInvalidValue);
}
cudaError_t cudaMallocHost(void** memory, std::size_t bytes, unsigned) {
  if (const cudaError_t code = begin_call_outside_capture("cudaMallocHost"); code != cudaSuccess) return code;
  *memory = bytes == 0 ? nullptr : std::malloc(bytes);
  if (*memory != nullptr) {
    std::memset(*memory, poison, bytes);
    add_pinned(*memory, bytes);
  }
  return *memory != nullptr || bytes == 0 ? cudaSuccess : answer(cudaErrorMemoryAllocation);
}
cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned flags) {
  return cudaMallocHost(memory, bytes, flags);
}
cudaError_t cudaFreeHost(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  if (const cudaError_t code = begin_call_outside_capture("cudaFreeHost"); code != cudaSuccess) return code;
  wait_before_release();
  if (!remove_pinned(memory)) return answer(cudaErrorInvalidValue);
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  if (const cudaError_t code = begin_call_outside_capture("cudaMemcpy"); code != cudaSuccess) return code;
  const cudaError_t code = copy("cudaMemcpy", to, from, bytes, kind, nullptr);
  return code == cudaSuccess ? synchronize(nullptr) : code;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (const cudaError_t code = begin_call("cudaMemcpyAsync"); code != cudaSuccess) return code;
  return copy("cudaMemcpyAsync", to, from, bytes, kind, stream);
}
cudaError_t cudaMemset(void* memory, int byte, std::size_t bytes) {
  if (const cudaError_t code = begin_call_outside_capture("cudaMemset"); code != cudaSuccess) return code;
  return fill("cudaMemset", memory, byte, bytes, nullptr);
}
cudaError_t cudaMemsetAsync(void* memory, int byte, std::size_t bytes, cudaStream_t stream) {
  if (const cudaError_t code = begin_call("cudaMemsetAsync"); code != cudaSuccess) return code;
  return fill("cudaMemsetAsync", memory, byte, bytes, stream);
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  if (const cudaError_t code = begin_call("cudaFuncSetAttribute"); code != cudaSuccess) return code;
  if (machine.major < machine.oldest_major) return answer(cudaErrorNoKernelImageForDevice);
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || value > most_shared)
    return answer(cudaErrorInvalidValue);
  most_dynamic[function] = value;
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  if (const cudaError_t code = begin_call("cudaFuncGetAttributes"); code != cudaSuccess) return code;
  if (machine.major < machine.oldest_major) return answer(cudaErrorNoKernelImageForDevice);
  *attributes = {};
  attributes->maxThreadsPerBlock = 1024;
  const auto asked = most_dynamic.find(function);
  attributes->maxDynamicSharedSizeBytes = asked == most_dynamic.end() ? default_dynamic : asked->second;
  return cudaSuccess;
}
