/// Choosing a GPU, and saying why it cannot be used.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <string>
#include <string_view>

#include "kd/core/error.hpp"
#include "kd/core/precision.hpp"
#include "kd/cuda/error.hpp"
#include "kd/kernel/cast.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// What is known of a GPU.
struct device_information {
  std::string description;  // "NVIDIA H200 (compute capability 9.0, CUDA 13.0)"
  int index = 0, major = 0, minor = 0;
  std::size_t memory_bytes = 0;
};

namespace detail {

/// 13000 as "13.0".
inline std::string cuda_version(int number) { return text(number / 1000, ".", number % 1000 / 10); }

/// Architectures that this translation unit's kernels were compiled for, " (built for 8.0 9.0)", where it is known.
template <class Visibility = kernel::not_shared>
std::string architectures() {
#if defined(__CUDA_ARCH_LIST__)
  std::string all = " (built for";
  for (const int architecture : {__CUDA_ARCH_LIST__})
    all += text(" ", architecture / 100, ".", architecture % 100 / 10);
  return all + ")";
#else
  return {};
#endif
}

/// A driver serves every toolkit of its major version or an older one.
inline void check_driver() {
  int driver = 0, runtime = 0;
  check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  // 0, or an error of its own, without a driver.
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  cudaGetLastError();
  if (driver == 0)
    throw device_error(text("kd::cuda: no NVIDIA driver was found, and this program needs one for CUDA ",
                            cuda_version(runtime), "; install it (nvidia-smi shows it), or run with --device cpu"));
  if (driver / 1000 < runtime / 1000)
    throw device_error(text("kd::cuda: the NVIDIA driver is older than the toolkit: it serves CUDA up to ",
                            cuda_version(driver), ", this program was built with CUDA ", cuda_version(runtime),
                            "; install a newer driver, build with an older toolkit, or run with --device cpu"));
}

}  // namespace detail

/// Makes the GPU of this index the current one of this thread. Throws device_error where there is no driver or too old
/// a one, no GPU or none of this index, no code for it in this program, or no such precision on it; the message says
/// what was found and the remedy.
template <class Visibility = kernel::not_shared>
device_information select_device(int index, precision p) {
  const std::string_view asked = text_of(p);  // throws on what is no precision
  detail::check_driver();
  int count = 0;
  const cudaError_t counted = cudaGetDeviceCount(&count);
  if (counted != cudaErrorNoDevice) check(counted, "cudaGetDeviceCount");
  if (counted == cudaErrorNoDevice || count == 0) {
    cudaGetLastError();
    throw device_error(
        "kd::cuda: no NVIDIA GPU is visible; check nvidia-smi and CUDA_VISIBLE_DEVICES, or run with --device cpu");
  }
  if (index < 0 || index >= count)
    throw device_error(text("kd::cuda: the index of the GPU must be 0 to ", count - 1, ", received ", index,
                            "; nvidia-smi -L lists the GPUs, and CUDA_VISIBLE_DEVICES chooses among them"));
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  int runtime = 0;
  check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  const std::string capability = text(properties.major, ".", properties.minor);
  const std::string description =
      text(properties.name, " (compute capability ", capability, ", CUDA ", detail::cuda_version(runtime), ")");
  if (p != precision::fp32 && properties.major < 8)
    throw device_error(text("kd::cuda: precision ", asked, " needs compute capability 8.0 or later, ", description,
                            " has ", capability, "; choose precision fp32"));
  check(cudaSetDevice(index), "cudaSetDevice");
  // Asking for any kernel makes the runtime look for code that this GPU can run.
  cudaFuncAttributes attributes{};
  const cudaError_t code =
      cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(kernel::cast<float, kernel::bfloat16>));
  if (code == cudaErrorNoKernelImageForDevice || code == cudaErrorInvalidDeviceFunction ||
      code == cudaErrorUnsupportedPtxVersion) {
    cudaGetLastError();
    throw device_error(text(
        "kd::cuda: this program has no code for ", description, detail::architectures(), ": ", cudaGetErrorName(code),
        "; configure with -DCMAKE_CUDA_ARCHITECTURES=native and build again", ", or run with --device cpu"));
  }
  check(code, "cudaFuncGetAttributes");
  return {description, index, properties.major, properties.minor, properties.totalGlobalMem};
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
