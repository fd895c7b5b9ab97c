/// Which kernels the fused losses run, and what is checked before.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kd/core/error.hpp"
#include "kd/cuda/launch.hpp"
#include "kd/kernel/loss_block.cuh"
#include "kd/kernel/loss_registers.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// The kernels of a fused loss. `automatic` takes the first that is meant for the shape; the others are for tests and
/// measurements.
enum class loss_variant {
  automatic,
  one_block,      // up to 32 classes: rows and sums in one launch of one block
  registers,      // up to 1,024 classes: a warp, or a quarter of one, for each row, and a second launch for the sums
  block_per_row,  // any: a block for each row, and a second launch for the sums
};

/// Bytes of scratch, aligned to 8, that the fused losses take.
constexpr std::size_t distillation_scratch(std::size_t rows, std::size_t) { return rows * sizeof(kernel::loss_row); }

namespace detail {

/// Rows that one block takes with the sums: four sweeps of 128. Beyond, two launches win by their many blocks (to be
/// measured: 1.3 us for the second launch against about 1 us for each sweep).
inline constexpr std::size_t one_block_rows = 512;
inline constexpr std::size_t one_block_classes = 32;
inline constexpr std::size_t register_classes = 1024;

inline loss_variant loss_variant_for(std::size_t rows, std::size_t classes) {
  if (classes <= one_block_classes && rows <= one_block_rows) return loss_variant::one_block;
  return classes <= register_classes ? loss_variant::registers : loss_variant::block_per_row;
}

/// Launches for one batch; `Launches` has the members in_registers<Lanes, Values, Fold>(grid, block), by_block() and
/// fold().
template <class Launches>
KD_HIDDEN void launch_loss(const char* name, const Launches& launches, std::size_t rows, std::size_t classes,
                           loss_variant variant) {
  constexpr std::size_t limit = 0x7fffffff;
  if (classes == 0 || classes > limit)
    reject_argument(name, text("classes must lie in [1,", limit, "]"), classes, "pass the logits' width");
  if (rows > limit) reject_argument(name, text("rows must lie in [0,", limit, "]"), rows, "use a smaller batch");
  if (variant == loss_variant::automatic) variant = loss_variant_for(rows, classes);
  const std::size_t most = [&] {
    switch (variant) {
      case loss_variant::one_block:
        return one_block_classes;
      case loss_variant::registers:
        return register_classes;
      case loss_variant::block_per_row:
        return limit;
      case loss_variant::automatic:  // was replaced above
        break;
    }
    reject_argument(name, "the variant must be one of loss_variant", static_cast<int>(variant),
                    "use loss_variant::automatic");
  }();
  if (classes > most)
    reject_argument(name, text("this variant takes at most ", most, " classes"), classes,
                    "use loss_variant::automatic");

  if (variant == loss_variant::one_block) {
    // Whole warps, four rows in each.
    const auto threads = static_cast<unsigned>(std::min<std::size_t>(1024, (rows + 3) / 4 * kernel::warp_size));
    if (classes <= 16) return launches.template in_registers<8, 2, true>(1, threads);
    return launches.template in_registers<8, 4, true>(1, threads);
  }
  if (variant == loss_variant::block_per_row) {
    launches.by_block(blocks_for(rows, 1));
    return launches.fold();
  }
  // Small batches go as single warps, so that they spread over the multiprocessors (132 on an H100).
  constexpr unsigned most_threads = kernel::register_rows_threads<false>;
  const std::size_t warps = blocks_for(rows, classes <= 32 ? 4 : 1);
  const unsigned threads = warps <= 1024 ? kernel::warp_size : most_threads;
  const unsigned by_quarter = blocks_for(rows, threads / 8), by_warp = blocks_for(rows, threads / kernel::warp_size);
  if (classes <= 16)
    launches.template in_registers<8, 2, false>(by_quarter, threads);
  else if (classes <= 32)
    launches.template in_registers<8, 4, false>(by_quarter, threads);
  else if (classes <= 64)
    launches.template in_registers<32, 2, false>(by_warp, threads);
  else if (classes <= 128)
    launches.template in_registers<32, 4, false>(by_warp, threads);
  else if (classes <= 256)
    launches.template in_registers<32, 8, false>(by_warp, threads);
  else if (classes <= 512)
    launches.template in_registers<32, 16, false>(by_warp, threads);
  else
    launches.template in_registers<32, 32, false>(by_warp, threads);
  launches.fold();
}

inline void require_pointer(const char* name, const char* what, const void* pointer) {
  if (pointer == nullptr)
    reject_argument(name, text(what, " must not be null"), "a null pointer", "pass device memory");
}

inline kernel::loss_row* loss_rows_in(const char* name, std::byte* scratch) {
  require_pointer(name, "scratch", scratch);
  const auto past = reinterpret_cast<std::uintptr_t>(scratch) % alignof(kernel::loss_row);
  if (past != 0)
    reject_argument(name, "scratch must be aligned to 8 bytes", text("an address ", past, " beyond"),
                    "pass the start of a buffer");
  return reinterpret_cast<kernel::loss_row*>(scratch);
}

/// Whether rows of these arrays can be accessed four logits at a time.
template <class Logit, class... Pointers>
bool rows_allow_four(std::size_t classes, const Pointers*... arrays) {
  return classes % 4 == 0 && ((reinterpret_cast<std::uintptr_t>(arrays) % (4 * sizeof(Logit)) == 0) && ...);
}

}  // namespace detail

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
