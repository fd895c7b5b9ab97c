/// DIST's relation between samples: the correlation, over the rows, of each class's probabilities.
///
///   value = (1 / classes) sum_c (1 - corr(q_c, p_c)), q = softmax(z/T), p = softmax(t/T'); a column without a
///   deviation
///           has no correlation, adds 1 and no gradient.  d_z: the gradient by z
///   g_rc  = steepness_c (slope_c (q_rc - mean q_c) - (p_rc - mean p_c));  d_rc = factor q_rc (g_rc - sum_c q_rc g_rc)
/// Huang et al., arXiv:2205.10536, section 4. Layout: student, teacher, gradient [row][class], float.
///
/// | kernel           | bytes per class | launch                              |
/// |------------------|-----------------|-------------------------------------|
/// | soften_rows      | 16 read         | a block of 256 for each row         |
/// | relate_columns   | 16 read         | a block of 32 x 8 for 32 columns    |
/// | sum_columns      | 8 a column      | one block of 256                    |
/// | columns_backward | 16 read, 4 written | a block of 256 for each row      |
///
/// Sums over rows are in double and in a fixed order. Limits: rows and classes below 2^31. A row with a NaN, a plus
/// infinity, or without a class that is not masked is a fault: the gradient is not written then. Checked in
/// tests/cuda/dist_columns_test.cpp.
#pragma once

#include "kd/formula/logit_batch.hpp"
#include "kd/kernel/block.cuh"
#include "kd/kernel/loss_row.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// Threads of a block: the kernels are templates on them alone so that many programs may contain them.
inline constexpr unsigned column_threads = 256, column_strip = 32, column_rows = column_threads / column_strip;

/// What a call leaves behind in the device's memory.
struct columns_result {
  double value = 0;
  unsigned fault_row = no_class;  // the first one; no_class where there is none
  unsigned fault_in_teacher = 0;
};

/// Arrays of a call, and of [rows] and [classes] in its scratch.
struct columns_call {
  formula::logit_batch<float> batch;
  float temperature, teacher_temperature;
  double value_factor;    // of the mean over the classes
  float gradient_factor;  // of d
  struct softened {
    float max, unit;  // a probability is exp((x - max)/T) unit
  };
  softened *students, *teachers;                           // [rows]
  float *student_mean, *teacher_mean, *slope, *steepness;  // [classes]
  double* values;                                          // [classes]
  columns_result* result;

  template <class T>
  __device__ T* row(const formula::row_array<T>& array, std::size_t r) const {
    const std::size_t stride = array.row_stride == 0 ? batch.classes : array.row_stride;
    if (batch.group_rows == 0) return array.data + r * stride;
    const std::size_t group = array.group_stride == 0 ? batch.group_rows * stride : array.group_stride;
    return array.data + r / batch.group_rows * group + r % batch.group_rows * stride;
  }
};

__device__ inline float softened_class(float x, const columns_call::softened& of, const softening& soft) {
  return soft(x - of.max) * of.unit;
}

/// `unit` becomes NaN where the row is at fault; all threads of the block must call.
__device__ inline columns_call::softened soften_row(const float* x, unsigned classes, const softening& soft) {
  __shared__ float maxima[column_threads / warp_size];
  __shared__ float sums[column_threads / warp_size];
  const unsigned lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  float max = -float_infinity;
  for (unsigned c = threadIdx.x; c < classes; c += column_threads) max = fmaxf(max, x[c]);
  max = warp_max(max);
  if (lane == 0) maxima[warp] = max;
  __syncthreads();
  max = warp_max(maxima[lane % (column_threads / warp_size)]);
  const bool finite = max > -float_infinity && max < float_infinity;
  float sum = 0;
  if (finite)
    for (unsigned c = threadIdx.x; c < classes; c += column_threads) sum += soft(x[c] - max);  // a NaN stays one
  sum = block_sum<column_threads>(sum, sums);
  __syncthreads();  // the next call writes the shared arrays again
  return {max, finite ? 1 / sum : bits_to_float(0x7fc00000u)};
}

template <unsigned Threads>
KD_KERNEL void __launch_bounds__(Threads) soften_rows(const columns_call a) {
  const unsigned classes = static_cast<unsigned>(a.batch.classes);
  const auto student = soften_row(a.row(a.batch.student, blockIdx.x), classes, softening(a.temperature));
  const auto teacher = soften_row(a.row(a.batch.teacher, blockIdx.x), classes, softening(a.teacher_temperature));
  if (threadIdx.x != 0) return;
  a.students[blockIdx.x] = student;
  a.teachers[blockIdx.x] = teacher;
}

/// Adds up what the threads of a column have, in all of them; all threads of the block must call.
__device__ inline double column_sum(double x, double (*room)[column_strip]) {
  const unsigned column = threadIdx.x % column_strip, part = threadIdx.x / column_strip;
  room[part][column] = x;
  __syncthreads();
  double sum = 0;
#pragma unroll
  for (unsigned i = 0; i < column_rows; ++i) sum += room[i][column];
  __syncthreads();  // the next call writes `room` again
  return sum;
}

template <unsigned Threads>
KD_KERNEL void __launch_bounds__(Threads) relate_columns(const columns_call a) {
  __shared__ double room[column_rows][column_strip];
  const std::size_t c = std::size_t{blockIdx.x} * column_strip + threadIdx.x % column_strip;
  const bool is_column = c < a.batch.classes;
  const softening student(a.temperature), teacher(a.teacher_temperature);
  const auto each_row = [&](const auto& add) {
    if (!is_column) return;
    for (std::size_t r = threadIdx.x / column_strip; r < a.batch.rows; r += column_rows)
      add(double{softened_class(a.row(a.batch.student, r)[c], a.students[r], student)},
          double{softened_class(a.row(a.batch.teacher, r)[c], a.teachers[r], teacher)});
  };
  const auto rows = static_cast<double>(a.batch.rows);
  double q_sum = 0, p_sum = 0, qq = 0, pp = 0, qp = 0;
  each_row([&](double q, double p) {
    q_sum += q;
    p_sum += p;
  });
  const double q_mean = column_sum(q_sum, room) / rows, p_mean = column_sum(p_sum, room) / rows;
  each_row([&](double q, double p) {
    const double dq = q - q_mean, dp = p - p_mean;
    qq += dq * dq;
    pp += dp * dp;
    qp += dq * dp;
  });
  qq = column_sum(qq, room);
  pp = column_sum(pp, room);
  qp = column_sum(qp, room);
  if (!is_column || threadIdx.x >= column_strip) return;
  const double deviations = sqrt(qq * pp);
  const double noise = rows * 1e-14;  // rounding alone would make a constant column one with a deviation
  const bool related = qq > noise * q_mean * q_mean && pp > noise * p_mean * p_mean;
  a.student_mean[c] = static_cast<float>(q_mean);
  a.teacher_mean[c] = static_cast<float>(p_mean);
  a.slope[c] = related ? static_cast<float>(qp / qq) : 0.0f;
  a.steepness[c] = related ? static_cast<float>(1 / deviations) : 0.0f;
  a.values[c] = related ? 1 - qp / deviations : 1.0;
}

template <unsigned Threads>
KD_KERNEL void __launch_bounds__(Threads) sum_columns(const columns_call a) {
  __shared__ double sums[column_threads / warp_size];
  double value = 0;
  for (std::size_t c = threadIdx.x; c < a.batch.classes; c += column_threads) value += a.values[c];
  value = block_sum<column_threads>(value, sums);
  __shared__ unsigned first;
  if (threadIdx.x == 0) first = no_class;
  __syncthreads();
  for (std::size_t r = threadIdx.x; r < a.batch.rows; r += column_threads)
    if (a.students[r].unit != a.students[r].unit || a.teachers[r].unit != a.teachers[r].unit) {
      atomicMin(&first, static_cast<unsigned>(r));
      break;
    }
  __syncthreads();
  if (threadIdx.x != 0) return;
  columns_result result;
  result.value = a.value_factor * value / static_cast<double>(a.batch.classes);
  result.fault_row = first;
  if (first != no_class) result.fault_in_teacher = a.students[first].unit == a.students[first].unit;
  *a.result = result;
}

template <unsigned Threads>
KD_KERNEL void __launch_bounds__(Threads) columns_backward(const columns_call a) {
  __shared__ double sums[column_threads / warp_size];
  if (a.result->fault_row != no_class) return;
  const float* const z = a.row(a.batch.student, blockIdx.x);
  const float* const t = a.row(a.batch.teacher, blockIdx.x);
  float* const d = a.row(a.batch.gradient, blockIdx.x);
  const softening student(a.temperature), teacher(a.teacher_temperature);
  const auto of_student = a.students[blockIdx.x], of_teacher = a.teachers[blockIdx.x];
  const unsigned classes = static_cast<unsigned>(a.batch.classes);
  float q = 0;
  const auto at = [&](unsigned c) {
    q = softened_class(z[c], of_student, student);
    const float p = softened_class(t[c], of_teacher, teacher);
    return a.steepness[c] * (a.slope[c] * (q - a.student_mean[c]) - (p - a.teacher_mean[c]));
  };
  double sum = 0;  // of q g
  for (unsigned c = threadIdx.x; c < classes; c += column_threads) {
    const float g = at(c);
    sum += double{q * g};
  }
  const auto mean = static_cast<float>(block_sum<column_threads>(sum, sums));
  for (unsigned c = threadIdx.x; c < classes; c += column_threads) {
    const float g = at(c), x = q * (g - mean) * a.gradient_factor;
    d[c] = a.batch.add_to_gradient ? d[c] + x : x;
  }
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
