/// The distillation loss as separate operations, each forward and backward, one kernel for each: what the fused kernels
/// are held against, in value and in time.
///
///   log_softmax: out = x/T - max - log sum exp(x/T - max);  d_x = (d_out - exp(out) sum d_out) / T
///   softmax: p = exp(log_softmax);  d_x = p (d_p - sum p d_p) / T
///   KL: sum p (log p - log q), classes with p = 0 add 0;  d_log_q = -scale p
///   cross entropy: -log_q[label];  d_log_q = -scale onehot
/// Layout: [rows][classes] floats. The operations over rows take a block of 256 threads for each row and read it once
/// to reduce and once to write; elementwise ones take a thread for each element. Bytes per class: log_softmax and
/// softmax forward 8 read (the second 4 mostly from cache) and 4 written, backward twice 8 read and 4 written, KL
/// forward 12 read, KL backward 4 and 4, CE backward 4 written. Values come per row in double and are summed by
/// sum_of_rows.
///
/// Limits: rows below 2^31; nothing is checked. Checked in tests/cuda/unfused_test.cpp.
#pragma once

#include "kd/kernel/loss_row.cuh"

namespace kd_bench::unfused {

using namespace kd::kernel;

inline constexpr unsigned unfused_threads = 256;

/// The largest over the block; `room` as for block_sum.
__device__ inline float block_max(float x, float* room) {
  x = warp_max(x);
  const unsigned lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  if (lane == 0) room[warp] = x;
  __syncthreads();
  return warp_max(room[lane % (unfused_threads / warp_size)]);
}

/// Log: log softmax(x / T), else softmax(x / T).
template <bool Log>
KD_KERNEL void __launch_bounds__(unfused_threads)
    softmax_forward(std::size_t classes, const float* x, float temperature, float* out) {
  __shared__ float maxima[unfused_threads / warp_size], sums[unfused_threads / warp_size];
  x += blockIdx.x * classes;
  out += blockIdx.x * classes;
  // Each thread: the largest so far, and the sum relative to it.
  float largest = lowest_float, sum = 0;
  for (std::size_t c = threadIdx.x; c < classes; c += unfused_threads) {
    const float larger = fmaxf(largest, x[c]);
    sum = sum * expf((largest - larger) / temperature) + expf((x[c] - larger) / temperature);
    largest = larger;
  }
  const float row_largest = block_max(largest, maxima);
  sum = block_sum<unfused_threads>(sum * expf((largest - row_largest) / temperature), sums);
  const float log_sum = logf(sum);
  for (std::size_t c = threadIdx.x; c < classes; c += unfused_threads) {
    const float shifted = (x[c] - row_largest) / temperature;
    out[c] = Log ? shifted - log_sum : expf(shifted) / sum;
  }
}

/// @param out what log_softmax forward returned
template <class Visibility = not_shared>
KD_KERNEL void __launch_bounds__(unfused_threads)
    log_softmax_backward(std::size_t classes, const float* out, const float* d_out, float temperature, float* d_x) {
  __shared__ float room[unfused_threads / warp_size];
  const std::size_t row = blockIdx.x * classes;
  float sum = 0;
  for (std::size_t c = threadIdx.x; c < classes; c += unfused_threads) sum += d_out[row + c];
  sum = block_sum<unfused_threads>(sum, room);
  for (std::size_t c = threadIdx.x; c < classes; c += unfused_threads)
    d_x[row + c] = (d_out[row + c] - expf(out[row + c]) * sum) / temperature;
}

/// @param p what softmax forward returned
template <class Visibility = not_shared>
KD_KERNEL void __launch_bounds__(unfused_threads)
    softmax_backward(std::size_t classes, const float* p, const float* d_p, float temperature, float* d_x) {
  __shared__ float room[unfused_threads / warp_size];
  const std::size_t row = blockIdx.x * classes;
  float sum = 0;
  for (std::size_t c = threadIdx.x; c < classes; c += unfused_threads) sum += p[row + c] * d_p[row + c];
  sum = block_sum<unfused_threads>(sum, room);
  for (std::size_t c = threadIdx.x; c < classes; c += unfused_threads)
    d_x[row + c] = p[row + c] * (d_p[row + c] - sum) / temperature;
}

/// values[row] = sum p (log_p - log_q).
template <class Visibility = not_shared>
KD_KERNEL void __launch_bounds__(unfused_threads)
    kl_divergence_forward(std::size_t classes, const float* p, const float* log_p, const float* log_q, double* values) {
  __shared__ double room[unfused_threads / warp_size];
  const std::size_t row = blockIdx.x * classes;
  double sum = 0;
  for (std::size_t c = row + threadIdx.x; c < row + classes; c += unfused_threads)
    if (p[c] > 0) sum += double{p[c]} * (double{log_p[c]} - double{log_q[c]});
  sum = block_sum<unfused_threads>(sum, room);
  if (threadIdx.x == 0) values[blockIdx.x] = sum;
}

/// d_log_q = -scale p, n elements.
template <class Visibility = not_shared>
KD_KERNEL void __launch_bounds__(unfused_threads)
    kl_divergence_backward(std::size_t n, const float* p, float scale, float* d_log_q) {
  const std::size_t i = std::size_t{blockIdx.x} * unfused_threads + threadIdx.x;
  if (i < n) d_log_q[i] = -scale * p[i];
}

/// values[row] = -log_q[row][labels[row]].
template <class Visibility = not_shared>
KD_KERNEL void __launch_bounds__(unfused_threads)
    cross_entropy_forward(std::size_t rows, std::size_t classes, const float* log_q, const std::int32_t* labels,
                          double* values) {
  const std::size_t row = std::size_t{blockIdx.x} * unfused_threads + threadIdx.x;
  if (row < rows) values[row] = -double{log_q[row * classes + static_cast<std::size_t>(labels[row])]};
}

/// d_log_q = -scale onehot(label), a block for each row.
template <class Visibility = not_shared>
KD_KERNEL void __launch_bounds__(unfused_threads)
    cross_entropy_backward(std::size_t classes, const std::int32_t* labels, float scale, float* d_log_q) {
  const auto label = static_cast<std::size_t>(labels[blockIdx.x]);
  d_log_q += blockIdx.x * classes;
  for (std::size_t c = threadIdx.x; c < classes; c += unfused_threads) d_log_q[c] = c == label ? -scale : 0.0f;
}

/// a += b, n elements.
template <class Visibility = not_shared>
KD_KERNEL void __launch_bounds__(unfused_threads) add_gradient(std::size_t n, const float* b, float* a) {
  const std::size_t i = std::size_t{blockIdx.x} * unfused_threads + threadIdx.x;
  if (i < n) a[i] += b[i];
}

/// out[0] = scale times the sum of n values; one block.
template <class Visibility = not_shared>
KD_KERNEL void __launch_bounds__(unfused_threads)
    sum_of_rows(std::size_t n, const double* values, double scale, double* out) {
  __shared__ double room[unfused_threads / warp_size];
  double sum = 0;
  for (std::size_t i = threadIdx.x; i < n; i += unfused_threads) sum += values[i];
  sum = block_sum<unfused_threads>(sum, room);
  if (threadIdx.x == 0) *out = scale * sum;
}

}  // namespace kd_bench::unfused
