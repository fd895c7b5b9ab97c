/// A teacher of whom only the likeliest classes were kept, on the GPU.
#pragma once

#include <cstddef>

#include "kd/cuda/launch.hpp"
#include "kd/cuda/stream.hpp"
#include "kd/formula/top_k_rows.hpp"
#include "kd/kernel/top_k_teacher.cuh"
#include "kd/loss/require_arrays.hpp"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// Writes the teacher's rows as kd::expand_top_k does, asynchronously. What that throws for the contents of a row,
/// indices that are no classes or stand twice, probabilities that sum to more than 1, makes the row NaN here: the loss
/// reports it as a fault.
/// @param from, to arrays in device memory
/// Throws argument_error for k outside [1, 256] or above the classes, null pointers, overlapping rows, rows or classes
/// beyond 2^31, and one_bucket.
template <class Value, class Index>
KD_HIDDEN void expand_top_k(stream_view s, const formula::top_k_rows<Value, Index>& from,
                            const formula::row_array<float>& to) {
  constexpr const char* name = "kd::cuda::expand_top_k";
  if (from.rows == 0) return;
  kd::detail::require_expansion(name, from, to);
  constexpr std::size_t limit = 0x7fffffff;
  if (from.rows > limit || from.classes > limit)
    reject_argument(name, text("rows and classes must lie below ", limit), text(from.rows, " of ", from.classes),
                    "use a smaller batch");
  constexpr unsigned threads = formula::top_k_rows<Value, Index>::most;
  launch(s, "expand_top_k", blocks_for(from.rows, 1), threads, 0, kernel::expand_top_k<threads, Value, Index>, from,
         to);
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
