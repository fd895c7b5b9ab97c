/// Stand-in for NVIDIA's cuda_runtime.h: launches and what is a template there.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <tuple>
#include <utility>

namespace simt {

/// A call with the arguments as they are now, converted to the kernel's parameters.
template <class... Parameters, class... Arguments>
std::function<void()> call_of(void (*kernel)(Parameters...), Arguments&&... arguments) {
  return [kernel, values = std::tuple<Parameters...>(static_cast<Parameters>(std::forward<Arguments>(arguments))...)] {
    std::apply(kernel, values);
  };
}

}  // namespace simt

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  return simt::launch({"", config->gridDim, config->blockDim, config->dynamicSmemBytes}, config->stream,
                      reinterpret_cast<const void*>(kernel),
                      simt::call_of(kernel, std::forward<Arguments>(arguments)...));
}

template <class T>
cudaError_t cudaFuncSetAttribute(T* function, cudaFuncAttribute attribute, int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(function), attribute, value);
}
template <class T>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, T* function) {
  return cudaFuncGetAttributes(attributes, reinterpret_cast<const void*>(function));
}
template <class T>
cudaError_t cudaMalloc(T** memory, std::size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(memory), bytes);
}
template <class T>
cudaError_t cudaMallocHost(T** memory, std::size_t bytes, unsigned flags = 0) {
  return cudaMallocHost(reinterpret_cast<void**>(memory), bytes, flags);
}
