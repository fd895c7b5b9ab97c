/// Kernels with one defect each, and the same without it (Broken = false): what the emulator must catch, and must not.
#pragma once

#include "kd/kernel/abi.cuh"

namespace kd_test {

/// out[block] = sum of x[256 block ...]. Defect: no barrier between the halvings of one size.
template <bool Broken>
KD_KERNEL void sum_without_barrier(const float* x, float* out) {
  __shared__ float room[256];
  room[threadIdx.x] = x[blockIdx.x * 256 + threadIdx.x];
  __syncthreads();
  for (unsigned half = 128; half > 0; half /= 2) {
    if (threadIdx.x < half) room[threadIdx.x] += room[threadIdx.x + half];
    if (!Broken || half != 64) __syncthreads();
  }
  if (threadIdx.x == 0) out[blockIdx.x] = room[0];
}

/// x[i] = the mirrored element of the block. Defect: none of the threads waits before it reads.
template <bool Broken>
KD_KERNEL void mirror_without_barrier(float* x) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[threadIdx.x];
  if (!Broken) __syncthreads();
  x[threadIdx.x] = tile[63 - threadIdx.x];
}

/// x[i] = the element mirrored three times. Defect: a round writes while slower threads still read the one before.
template <bool Broken>
KD_KERNEL void reuse_without_barrier(float* x) {
  __shared__ float tile[64];
  float mine = x[threadIdx.x];
  for (int round = 0; round < 3; ++round) {
    tile[threadIdx.x] = mine;
    __syncthreads();
    mine = tile[63 - threadIdx.x];
    if (!Broken) __syncthreads();
  }
  x[threadIdx.x] = mine;
}

/// Defect: the threads beyond n leave before the barrier.
template <bool Broken>
KD_KERNEL void early_return(float* x, unsigned n) {
  __shared__ float first;
  if (Broken && threadIdx.x >= n) return;
  if (threadIdx.x == 0) first = x[0];
  __syncthreads();
  if (threadIdx.x < n) x[threadIdx.x] = first;
}

/// Defect: the halves of the block wait at two barriers.
template <bool Broken>
KD_KERNEL void two_barriers(float* x) {
  if (threadIdx.x < 32) {
    x[threadIdx.x] = 1;
    if (Broken) __syncthreads();
  } else {
    x[threadIdx.x] = 2;
    if (Broken) __syncthreads();
  }
  if (!Broken) __syncthreads();
}

/// out[0] = number of blocks. Defect: every block adds without an atomic operation.
template <bool Broken>
KD_KERNEL void count_blocks(unsigned* out) {
  if (threadIdx.x != 0) return;
  if (Broken)
    out[0] += 1;
  else
    atomicAdd(out, 1u);
}

/// x[block] = block. Defect: as one more than what the block before has written, which may not have run yet.
template <bool Broken>
KD_KERNEL void chain_of_blocks(float* x) {
  if (threadIdx.x == 0)
    x[blockIdx.x] = !Broken || blockIdx.x == 0 ? static_cast<float>(blockIdx.x) : x[blockIdx.x - 1] + 1;
}

/// Blocks that write neighbouring bytes of a word do not race; defect: they write the same one.
template <bool Broken>
KD_KERNEL void neighbouring_bytes(unsigned char* out) {
  out[Broken ? blockIdx.x / 2 : blockIdx.x] = static_cast<unsigned char>(blockIdx.x);
}

/// Defect: reads the element after the end of a device buffer of n.
template <bool Broken>
KD_KERNEL void past_device_end(const float* x, float* out, unsigned n) {
  const unsigned i = threadIdx.x;
  if (i < n) out[i] = x[i] + (i + 1 < n || Broken ? x[i + 1] : 0.0f);
}

/// Defect: writes the element after the end of a device buffer of n.
template <bool Broken>
KD_KERNEL void write_past_device_end(float* out, unsigned n) {
  const unsigned i = threadIdx.x;
  if (Broken ? i <= n : i < n) out[i] = 1;
}

/// Defect: writes the element after the end of dynamic shared memory of n floats.
template <bool Broken>
KD_KERNEL void past_dynamic_end(float* out, unsigned n) {
  KD_DYNAMIC_SHARED(float, tile);
  const unsigned i = threadIdx.x;
  if (Broken ? i <= n : i < n) tile[i] = static_cast<float>(i);
  __syncthreads();
  if (i < n) out[i] = tile[n - 1 - i];
}

/// Defect: writes the element after the end of a static shared array.
template <bool Broken>
KD_KERNEL void past_static_end(float* out, unsigned n) {
  __shared__ float tile[37];
  const unsigned i = threadIdx.x;
  if (Broken ? i <= n : i < n) tile[i] = static_cast<float>(i);
  __syncthreads();
  if (i < n) out[i] = tile[n - 1 - i];
}

/// x[i] = sum of four elements. Defect: vectors that do not begin at a multiple of 16 bytes.
template <bool Broken>
KD_KERNEL void misaligned_vector(float* x) {
  const float4 v = *reinterpret_cast<const float4*>(x + 4 * threadIdx.x + (Broken ? 1 : 0));
  __syncthreads();
  x[threadIdx.x] = v.x + v.y + v.z + v.w;
}

/// Defect: one element of the tile is never written.
template <bool Broken>
KD_KERNEL void uninitialised_shared(float* out) {
  __shared__ float tile[64];
  if (!Broken || threadIdx.x != 17) tile[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[63 - threadIdx.x];
}

/// Defect: lane 0 reads from lane 16, which the mask does not name.
template <bool Broken>
KD_KERNEL void inactive_lane(float* out) {
  float x = static_cast<float>(threadIdx.x);
  if (threadIdx.x < 16) x += __shfl_sync(0x0000ffffu, x, Broken && threadIdx.x == 0 ? 16 : 3);
  out[threadIdx.x] = x;
}

/// Defect: the mask names all lanes, of which half are not there.
template <bool Broken>
KD_KERNEL void absent_lanes(float* out) {
  float x = static_cast<float>(threadIdx.x);
  if (threadIdx.x < 16) x += __shfl_xor_sync(Broken ? 0xffffffffu : 0x0000ffffu, x, 8);
  out[threadIdx.x] = x;
}

/// Each lane passes a value to its neighbour through shared memory. Defect: without __syncwarp.
template <bool Broken>
KD_KERNEL void neighbour_without_syncwarp(float* out) {
  __shared__ float tile[64];
  const unsigned i = threadIdx.x, first = i / 32 * 32;
  tile[i] = static_cast<float>(i);
  if (!Broken) __syncwarp();
  out[i] = tile[first + (i + 1) % 32];
}

/// Half of the lanes meet, and the other half; defect: the value crosses from one half to the other.
template <bool Broken>
KD_KERNEL void crosses_halves(float* out) {
  __shared__ float tile[32];
  const unsigned i = threadIdx.x, half = i / 16 * 16;
  tile[i] = static_cast<float>(i);
  __syncwarp(half == 0 ? 0x0000ffffu : 0xffff0000u);
  out[i] = tile[Broken ? (i + 16) % 32 : half + (i + 1) % 16];
}

/// Three lanes. Defect: each waits for the next one, in a circle.
template <bool Broken>
KD_KERNEL void circle_of_lanes(float* out) {
  const unsigned lane = threadIdx.x;
  __syncwarp(Broken ? 1u << lane | 1u << (lane + 1) % 3 : 7u);
  out[lane] = 1;
}

/// y = 2 x, and y = y + 1: two steps that a stream or an event must keep in order.
KD_KERNEL void twice(const float* x, float* y, unsigned n) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = 2 * x[i];
}
KD_KERNEL void add_one(float* y, unsigned n) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] += 1;
}

}  // namespace kd_test
