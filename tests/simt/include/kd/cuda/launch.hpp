/// kd/cuda/launch.hpp for the emulator: the same interface, found before it; the kernel keeps its name.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "kd/cuda/error.hpp"
#include "kd/cuda/stream.hpp"
#include "kd/kernel/abi.cuh"

namespace kd::inline KD_ABI::cuda {

/// Puts kernel(arguments...) into the stream, to be emulated when its turn comes. An empty grid launches nothing.
template <class... Parameters, class... Arguments>
KD_HIDDEN void launch(stream_view s, const char* name, dim3 grid, dim3 block, std::size_t shared_bytes,
                      void (*kernel)(Parameters...), Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  const void* function = reinterpret_cast<const void*>(kernel);
  if (shared_bytes > 48 * 1024 && shared_bytes <= 227 * 1024)
    check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
          text("the shared memory of kernel ", name));
  check(simt::launch({name, grid, block, shared_bytes}, s.get(), function,
                     simt::call_of(kernel, std::forward<Arguments>(arguments)...)),
        text("kernel ", name));
}

/// ceil(n / per) as a grid extent; throws argument_error where it does not fit.
inline unsigned blocks_for(std::size_t n, std::size_t per) {
  const std::size_t blocks = n / per + (n % per != 0);
  if (blocks > 0x7fffffffu)
    reject_argument("kd::cuda::blocks_for", "at most 2147483647 blocks", blocks, "use a smaller batch");
  return static_cast<unsigned>(blocks);
}

}  // namespace kd::inline KD_ABI::cuda
