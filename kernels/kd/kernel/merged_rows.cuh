/// A teacher's k classes and one for all others: the rows of a batch as k + 1 classes each, between which and the batch
/// these kernels stand; the losses' own compute the k + 1. kd/cuda/top_k_loss.hpp says in which order.
///
///   merge_rows  z' = z of the k, and u = T log sum exp(z/T) of the rest; t' = the values, and log(1 - sum exp(t)) or
///               minus infinity. z' is less the row's largest logit
///   set_hits    terms[row].correct, agrees = those of the classes themselves
///   take_sums   sums += those of the merged rows, or their first fault by the names of the batch
///   share_rows  d_z of the k = d_z', of the rest = d_u softmax(z/T of the rest)
/// Layout: student, gradient [row][class], merged rows [row][k + 1]. Launch: 256 threads, a block per row, 11 KB of
/// shared memory; set_hits a thread per row, take_sums one block. Bytes per class: 4 read in each of merge_rows and
/// share_rows, 4 written. Limits: k up to 256, rows and classes below 2^31. Checked in tests/cuda/top_k_loss_test.cpp.
#pragma once

#include "kd/formula/top_k_rows.hpp"
#include "kd/kernel/loss_block.cuh"
#include "kd/kernel/loss_sums.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

inline constexpr unsigned merge_threads = 256;

/// What is known of a row beside its merged classes.
struct merged_row {
  float rest_max = -float_infinity, rest_sum = 0;  // of the classes not kept: sum exp((z - max)/T)
  std::uint32_t correct = 0, agrees = 0;
};

/// A call's arrays.
template <class Batch, class Value, class Index>
struct merged_call {
  Batch batch;
  formula::top_k_rows<Value, Index> teacher;
  float *student, *teachers, *gradient;  // [rows][k + 1]
  std::int32_t* labels;                  // [rows]: 0, -1 for one that is no class, -100 for an ignored row
  merged_row* rows;
  formula::loss_sums* sums;  // of the merged rows

  __device__ const Index* indices(std::size_t row) const {
    return teacher.indices.data + row * (teacher.indices.row_stride == 0 ? teacher.k : teacher.indices.row_stride);
  }
  __device__ const Value* values(std::size_t row) const {
    return teacher.values.data + row * (teacher.values.row_stride == 0 ? teacher.k : teacher.values.row_stride);
  }
};

/// Which classes were kept, a window of them at a time.
struct kept_classes {
  static constexpr unsigned window = 65536;
  std::uint32_t bits[window / 32];

  __device__ bool holds(unsigned c) const { return bits[c % window / 32] >> c % 32 & 1; }
  /// Of the window from `first` on; all threads of the block must call. `mine`: a class of this thread, or no_class.
  __device__ void fill(unsigned first, unsigned mine) {
    __syncthreads();  // who still asks
    for (unsigned i = threadIdx.x; i < window / 32; i += merge_threads) bits[i] = 0;
    __syncthreads();
    if (mine != no_class && mine - first < window) atomicOr(&bits[mine % window / 32], 1u << mine % 32);
    __syncthreads();
  }
};

/// Calls step(class) for this thread's classes that were not kept. All threads of the block must call.
template <class Step>
__device__ void each_of_rest(unsigned classes, unsigned mine, kept_classes& kept, const Step& step) {
  for (unsigned first = 0; first < classes; first += kept_classes::window) {
    kept.fill(first, mine);
    const unsigned end = classes - first < kept_classes::window ? classes : first + kept_classes::window;
    for (unsigned c = first + threadIdx.x; c < end; c += merge_threads)
      if (!kept.holds(c)) step(c);
  }
}

/// The largest of a block's numbers and its class, the smallest of equals; all threads of the block must call.
struct largest_class {
  float logit = -float_infinity;
  unsigned at = no_class;

  __device__ void take(float other, unsigned other_at) { take_larger(logit, at, other, other_at); }
  __device__ void over_block(float* logits, unsigned* classes) {
    over_warp();
    const unsigned lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
    if (lane == 0) {
      logits[warp] = logit;
      classes[warp] = at;
    }
    __syncthreads();
    logit = logits[lane % (merge_threads / warp_size)];
    at = classes[lane % (merge_threads / warp_size)];
    over_warp();
    __syncthreads();  // the next call writes the arrays again
  }

 private:
  __device__ void over_warp() {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      const float other = __shfl_xor_sync(full_warp, logit, offset);
      take(other, __shfl_xor_sync(full_warp, at, offset));
    }
  }
};

template <class Loss, class Batch, class Value, class Index>
KD_KERNEL void __launch_bounds__(merge_threads) merge_rows(const merged_call<Batch, Value, Index> a, const Loss* loss) {
  __shared__ kept_classes kept;
  __shared__ unsigned list[merge_threads], classes_of_warps[merge_threads / warp_size];
  __shared__ float logits_of_warps[merge_threads / warp_size], sums[merge_threads / warp_size];
  __shared__ double probabilities[merge_threads / warp_size];
  __shared__ unsigned faults[merge_threads / warp_size];
  const unsigned row = blockIdx.x, i = threadIdx.x, k = static_cast<unsigned>(a.teacher.k);
  const row_of_batch<Batch> at(a.batch, row);
  if (row == 0 && i == 0) *a.sums = {};
  if (at.ignored) {
    if (i == 0) {
      a.labels[row] = -100;
      a.rows[row] = {};
    }
    return;
  }
  const bool is_kept = i < k, bucket = a.teacher.rest == formula::top_k_rest::one_bucket;
  const Index index = is_kept ? a.indices(row)[i] : Index{};
  const float value = is_kept ? to_float(a.values(row)[i]) : -float_infinity;
  bool at_fault = is_kept && (index < 0 || static_cast<std::uint64_t>(index) >= a.batch.classes);
  const unsigned mine = is_kept && !at_fault ? static_cast<unsigned>(index) : no_class;
  list[i] = mine;
  __syncthreads();
  for (unsigned j = 0; j < i; ++j) at_fault = at_fault || (mine != no_class && list[j] == mine);
  const double probability = block_sum<merge_threads>(is_kept ? exp(double{value}) : 0.0, probabilities);
  const bool bad = block_sum<merge_threads>(at_fault ? 1u : 0u, faults) > 0 ||
                   (bucket && probability > formula::most_kept_probability);

  // The rest: each thread's largest and its sum relative to that, then all relative to the largest of all.
  const softening soft(loss->temperature);
  const unsigned classes = at.classes();
  largest_class rest;
  float sum = 0;
  each_of_rest(classes, mine, kept, [&](unsigned c) {
    const float z = at.student_logit(c);
    if (z > rest.logit) {
      sum = sum * soft(rest.logit - z);
      rest.take(z, c);
    }
    if (z != -float_infinity) sum += soft(z - rest.logit);  // a NaN stays one
  });
  const float mine_max = rest.logit;
  rest.over_block(logits_of_warps, classes_of_warps);
  if (sum != 0 && mine_max != rest.logit) sum = mine_max == -float_infinity ? sum : sum * soft(mine_max - rest.logit);
  sum = block_sum<merge_threads>(sum, sums);

  largest_class student = rest, teacher;
  const float z = mine != no_class ? at.student_logit(mine) : -float_infinity;
  if (mine != no_class) {
    student.take(z, mine);
    teacher.take(value, mine);
  }
  student.over_block(logits_of_warps, classes_of_warps);
  teacher.over_block(logits_of_warps, classes_of_warps);
  const float largest = student.logit == -float_infinity ? 0.0f : student.logit;
  float* const merged = a.student + std::size_t{row} * (k + 1);
  float* const merged_teacher = a.teachers + std::size_t{row} * (k + 1);
  const float nan = bits_to_float(0x7fc00000u);
  if (is_kept) {
    merged[i] = z - largest;
    merged_teacher[i] = bad ? nan : value;
  }
  if (i != 0) return;
  merged[k] = sum == 0 ? -float_infinity
                       : static_cast<float>(double{rest.logit} - double{largest} +
                                            log(double{sum}) / double{soft.inverse_temperature()});
  merged_teacher[k] =
      bucket && k < classes && !(probability >= 1) ? static_cast<float>(log1p(-probability)) : -float_infinity;
  const bool has_label = a.batch.labels.data != nullptr;
  const bool is_class =
      has_label && at.label_value >= 0 && static_cast<std::uint64_t>(at.label_value) < a.batch.classes;
  a.labels[row] = has_label && !is_class ? -1 : 0;
  merged_row found;
  found.rest_max = rest.logit;
  found.rest_sum = sum;
  found.correct = is_class && student.at == static_cast<unsigned>(at.label_value);
  found.agrees = student.at == teacher.at;
  a.rows[row] = found;
}

template <class Loss>
KD_KERNEL void __launch_bounds__(merge_threads)
    set_hits(std::size_t rows, const merged_row* merged, loss_row<Loss>* terms) {
  const std::size_t row = std::size_t{blockIdx.x} * merge_threads + threadIdx.x;
  if (row >= rows) return;
  terms[row].correct = merged[row].correct != 0;
  terms[row].agrees = merged[row].agrees != 0;
}

/// The first fault of merged rows as one of the batch; all threads of the block must call.
template <class Batch, class Value, class Index>
__device__ loss_fault_place place_of(const merged_call<Batch, Value, Index>& a, loss_fault_kind kind, unsigned row,
                                     unsigned place) {
  __shared__ unsigned room;
  const row_of_batch<Batch> at(a.batch, row);
  if (kind == loss_fault_kind::label_out_of_range)
    return {kind, static_cast<std::uint64_t>(static_cast<std::int64_t>(at.label_value))};
  if (kind == loss_fault_kind::row_weight) return {kind, 0};
  const unsigned classes = at.classes(), k = static_cast<unsigned>(a.teacher.k);
  const unsigned c = first_class(
      classes,
      [&](unsigned i) {
        const float z = at.student_logit(i);
        return z != z || z == float_infinity;
      },
      &room);
  if (c != no_class)
    return {at.student_logit(c) == float_infinity ? loss_fault_kind::student_infinite : loss_fault_kind::student_nan,
            c};
  const Index* const indices = a.indices(row);
  if (place < k) return {kind, static_cast<std::uint64_t>(indices[place])};
  const unsigned of_rest = first_class(
      classes,
      [&](unsigned i) {
        bool is_kept = false;
        for (unsigned j = 0; j < k; ++j) is_kept = is_kept || static_cast<std::uint64_t>(indices[j]) == i;
        return !is_kept;
      },
      &room);
  return {kind, of_rest == no_class ? 0 : of_rest};
}

template <class Batch, class Value, class Index>
KD_KERNEL void __launch_bounds__(merge_threads)
    take_sums(const merged_call<Batch, Value, Index> a, formula::loss_sums* sums) {
  if (sums->fault_kind != loss_fault_kind::none) return;
  const formula::loss_sums& merged = *a.sums;
  if (merged.fault_kind == loss_fault_kind::none) {
    if (threadIdx.x != 0) return;
    sums->total += merged.total;
    for (std::size_t i = 0; i < formula::most_loss_values; ++i) sums->values[i] += merged.values[i];
    sums->correct += merged.correct;
    sums->agrees += merged.agrees;
    sums->rows += merged.rows;
    sums->steps += merged.steps;
    return;
  }
  const auto row = static_cast<unsigned>(merged.fault_row);
  const loss_fault_place place = place_of(a, merged.fault_kind, row, static_cast<unsigned>(merged.fault_class));
  __syncthreads();  // all have read the kind
  if (threadIdx.x != 0) return;
  sums->fault_kind = place.kind;
  sums->fault_row = row;
  sums->fault_class = place.class_index;
  sums->fault_step = sums->steps;
}

/// @param terms of the merged rows: those at fault are not written
template <class Loss, class Batch, class Value, class Index>
KD_KERNEL void __launch_bounds__(merge_threads)
    share_rows(const merged_call<Batch, Value, Index> a, const Loss* loss, const loss_row<Loss>* terms) {
  __shared__ kept_classes kept;
  using Gradient = std::remove_cvref_t<decltype(*a.batch.gradient.data)>;
  const unsigned row = blockIdx.x, i = threadIdx.x, k = static_cast<unsigned>(a.teacher.k);
  const row_of_batch<Batch> at(a.batch, row);
  const unsigned classes = at.classes();
  Gradient* const d = at.gradient();
  const bool adds = a.batch.add_to_gradient;
  if (at.ignored) {
    if (!adds)
      for (unsigned c = i; c < classes; c += merge_threads) d[c] = {};
    return;
  }
  if (!terms[row].finite) return;
  const auto put = [&](unsigned c, float x) { d[c] = from_float<Gradient>(adds ? to_float(d[c]) + x : x); };
  const float* const merged = a.gradient + std::size_t{row} * (k + 1);
  const softening soft(loss->temperature);
  const float max = a.rows[row].rest_max, sum = a.rows[row].rest_sum, unit = sum > 0 ? merged[k] / sum : 0.0f;
  const unsigned mine = i < k ? static_cast<unsigned>(a.indices(row)[i]) : no_class;
  each_of_rest(classes, mine, kept, [&](unsigned c) {
    const float z = at.student_logit(c);
    put(c, z == -float_infinity ? 0.0f : unit * soft(z - max));
  });
  if (mine != no_class) put(mine, merged[i]);
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
