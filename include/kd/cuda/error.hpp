/// Errors of the CUDA runtime as exceptions that say operation, symbolic name, text and what to do.
#pragma once

#include <cuda_runtime_api.h>

#include <string>
#include <string_view>

#include "kd/core/error.hpp"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

namespace detail {

inline std::string_view remedy_of(cudaError_t code) {
  switch (code) {
    case cudaErrorMemoryAllocation:
      return "use a smaller batch_size, or free the memory that other programs hold on this GPU (nvidia-smi lists "
             "them)";
    case cudaErrorInsufficientDriver:
      return "install an NVIDIA driver that is at least as new as the CUDA toolkit, or run with --device cpu";
    case cudaErrorNoDevice:
      return "no NVIDIA GPU is visible: check nvidia-smi and CUDA_VISIBLE_DEVICES, or run with --device cpu";
    case cudaErrorInvalidDevice:
      return "nvidia-smi -L lists the GPUs; CUDA_VISIBLE_DEVICES chooses among them";
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
      return "this program has no code for this GPU: configure with -DCMAKE_CUDA_ARCHITECTURES=native";
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
      return "a kernel touched memory that is not its own: compute-sanitizer finds it";
    case cudaErrorStreamCaptureUnsupported:
    case cudaErrorStreamCaptureInvalidated:
      return "allocating or waiting is not possible while a graph is recorded: do the step once before it is recorded";
    default:
      return "see the CUDA runtime's documentation of this error; if it comes from a kernel, compute-sanitizer finds "
             "it";
  }
}

}  // namespace detail

/// Throws device_error unless the call succeeded: "kd::cuda: OPERATION failed: NAME (TEXT); REMEDY".
inline void check(cudaError_t code, std::string_view operation) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // reported here, and not again by an unrelated call
  throw device_error(text("kd::cuda: ", operation, " failed: ", cudaGetErrorName(code), " (", cudaGetErrorString(code),
                          "); ", detail::remedy_of(code)));
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
