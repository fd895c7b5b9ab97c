/// Rows of channels: an NHWC activation [batch * height * width][channels], as blocks of threads lie over it.
///
/// A thread takes Width neighbouring channels (a column) of some rows; columns are neighbours in a warp, so that a row
/// is read in whole sectors. Lanes are the threads of one column: they take the rows of the block in turn.
#pragma once

#include "kd/kernel/number.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// Width neighbouring channels in memory: one load, one store.
template <class T, unsigned Width>
struct alignas(Width * sizeof(T)) channel_vector {
  T values[Width];
};

/// `from` is aligned to Width elements.
template <unsigned Width, class T>
__device__ void load_channels(const T* from, float (&to)[Width]) {
  const auto vector = *reinterpret_cast<const channel_vector<T, Width>*>(from);
#pragma unroll
  for (unsigned k = 0; k < Width; ++k) to[k] = to_float(vector.values[k]);
}
/// `to` is aligned to Width elements.
template <unsigned Width, class T>
__device__ void store_channels(T* to, const float (&from)[Width]) {
  channel_vector<T, Width> vector;
#pragma unroll
  for (unsigned k = 0; k < Width; ++k) vector.values[k] = from_float<T>(from[k]);
  *reinterpret_cast<channel_vector<T, Width>*>(to) = vector;
}

/// How the blocks of a launch cover rows [rows][channels]. Block b takes the column group b % groups of the rows
/// [slab, slab + 1) * rows_per_slab, slab = b / groups. Threads from columns * lanes on have no rows.
struct channel_tiling {
  std::size_t rows = 0, rows_per_slab = 0;
  unsigned channels = 0;
  unsigned columns = 0, lanes = 0;  // columns * lanes <= threads of a block
  unsigned groups = 0, slabs = 0;   // groups * slabs blocks
};

/// What one thread takes of a tiling: rows first, first + lanes, ... below end, of channels [channel, channel + Width).
struct channel_place {
  unsigned lane, column, channel, slab;
  std::size_t first, end;
  bool live;  // whether the channels exist; a place that is not live has no rows

  template <unsigned Width>
  static __device__ channel_place of(const channel_tiling& t) {
    channel_place p{};
    p.lane = threadIdx.x / t.columns;
    p.column = threadIdx.x % t.columns;
    p.channel = (blockIdx.x % t.groups * t.columns + p.column) * Width;
    p.slab = blockIdx.x / t.groups;
    p.live = p.lane < t.lanes && p.channel < t.channels;
    const std::size_t begin = p.slab * t.rows_per_slab;
    p.end = t.rows < begin + t.rows_per_slab ? t.rows : begin + t.rows_per_slab;
    p.first = p.live ? begin + p.lane : p.end;
    return p;
  }
};

/// The rows of a place that a thread holds in registers together: row r of them exists where has(r), and its first
/// element is at(r).
struct row_batch {
  std::size_t element, step;
  unsigned left, lanes;

  __device__ row_batch(const channel_tiling& t, const channel_place& p, std::size_t row)
      : element(row * t.channels + p.channel),
        step(std::size_t{t.lanes} * t.channels),
        left(p.end - row < 0xffffu ? static_cast<unsigned>(p.end - row) : 0xffffu),  // beyond any r * lanes
        lanes(t.lanes) {}
  __device__ bool has(unsigned r) const { return r * lanes < left; }
  __device__ std::size_t at(unsigned r) const { return element + r * step; }
};

/// Half of the smallest power of two that is at least n: the first step of a tree over n lanes, 0 for one lane.
__device__ inline unsigned half_of_lanes(unsigned n) {
  unsigned half = 0;
  for (unsigned reach = 1; reach < n; reach *= 2) half = reach;
  return half;
}

/// Shared memory in which a block adds Count sums per thread.
template <unsigned Threads, unsigned Count>
struct lane_sum_room {
  float values[Count][Threads];
};

/// Adds `sums` over the lanes of each column, in a fixed tree; the totals are left in lane 0. All threads must call.
template <unsigned Threads, unsigned Count>
__device__ void sum_over_lanes(const channel_tiling& t, unsigned lane, float (&sums)[Count],
                               lane_sum_room<Threads, Count>& room) {
#pragma unroll
  for (unsigned k = 0; k < Count; ++k) room.values[k][threadIdx.x] = sums[k];
  for (unsigned half = half_of_lanes(t.lanes); half > 0; half /= 2) {
    // The upper half was written in the step before, by other threads.
    __syncthreads();
    if (lane < half && lane + half < t.lanes) {
#pragma unroll
      for (unsigned k = 0; k < Count; ++k) {
        sums[k] += room.values[k][threadIdx.x + half * t.columns];
        room.values[k][threadIdx.x] = sums[k];
      }
    }
  }
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
