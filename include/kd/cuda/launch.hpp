/// The one way in which kd starts a kernel.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "kd/cuda/error.hpp"
#include "kd/cuda/stream.hpp"
#include "kd/kernel/abi.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// Puts kernel(arguments...) into the stream with this grid, block and bytes of dynamic shared memory. `name` stands in
/// error messages. An empty grid launches nothing. Arguments are converted to the kernel's parameters.
template <class Visibility = kernel::not_shared, class... Parameters, class... Arguments>
void launch(stream_view s, const char* name, dim3 grid, dim3 block, std::size_t shared_bytes,
            void (*kernel)(Parameters...), Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (shared_bytes > 48 * 1024)
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)),
          text("the shared memory of kernel ", name));
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = s.get();
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(std::forward<Arguments>(arguments))...),
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
#pragma GCC visibility pop
