/// The device that a program is asked for by name: "cpu", "cuda", or "auto", the GPU where there is one.
///
/// kd::cuda::device is the real one where the translation unit is compiled for CUDA, and otherwise another type,
/// kd::no_cuda::device, whose constructor throws: no name ever means two things in one program.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>

#include "kd/core/precision.hpp"
#include "kd/cpu/device.hpp"

#if defined(KD_CUDA)
#include "kd/cuda/device.hpp"
#else
#include "kd/no_cuda/device.hpp"
namespace kd::inline KD_ABI {
namespace cuda = no_cuda;
}
#endif

namespace kd::inline KD_ABI {

/// What a user of a program may choose.
struct device_choice {
  std::string device = "auto";  // cpu, cuda or auto
  int threads = cpu::parallel::available();
  int index = 0;  // of the GPU
  kd::precision precision = kd::precision::fp32;
};

namespace detail {

/// Says once in a program why the GPU is not used.
inline void say_why_cpu(const std::string& reason) {
  static bool said = false;
  if (!said) std::fprintf(stderr, "kd: the CPU is used: %s\n", reason.c_str());
  said = true;
}

}  // namespace detail

/// Calls use(device) with the device chosen; auto takes the GPU where it can be used, and otherwise the CPU, saying why
/// once. Throws argument_error on an unknown name or a precision that the CPU does not have, and device_error where
/// "cuda" cannot be used.
template <class Cuda = cuda::device, class Use>
void with_device(const device_choice& choice, Use&& use) {
  if (choice.device != "cpu" && choice.device != "cuda" && choice.device != "auto")
    reject_argument("kd::with_device", "the device must be cpu, cuda or auto", choice.device, "use auto");
  if (choice.device != "cpu") {
    const std::string reason = Cuda::unusable_because(choice.index);
    if (choice.device == "cuda" || reason.empty()) {
      Cuda device({.index = choice.index, .precision = choice.precision});
      if constexpr (Cuda::built) use(device);
      return;
    }
    detail::say_why_cpu(reason);
  }
  if (choice.precision != precision::fp32)
    reject_argument("kd::with_device", "the CPU device computes in fp32", text_of(choice.precision),
                    "use --device cuda, or --precision fp32");
  cpu::device device(choice.threads);
  use(device);
}

}  // namespace kd::inline KD_ABI
