/// The sums of a loss over rows and steps, and what is wrong with a row that has no finite loss.
///
///   sums += sum over the rows of (total, every term, correct, agrees), unless a row is at fault
/// Double precision in a fixed order: the same bits in every run. fold_loss_rows reads 8 bytes and 8 for each term per
/// row with one block of 1,024 threads (0.5 KB of shared memory and 0.3 for each term); a faulty row is read a second
/// time, by class.
///
/// Limits: rows and classes below 2^31. Checked in tests/cuda/logit_loss_test.cpp.
#pragma once

#include "kd/formula/loss_sums.hpp"
#include "kd/kernel/loss_row.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

using formula::loss_fault_kind;

struct loss_fault_place {
  loss_fault_kind kind;
  std::uint64_t class_index;  // of label_out_of_range: the label
};

/// The smallest class that passes the test, no_class where none does; all threads of the block must call. `room` is
/// shared memory.
template <class Test>
__device__ unsigned first_class(unsigned classes, const Test& passes, unsigned* room) {
  if (threadIdx.x == 0) *room = no_class;
  __syncthreads();
  for (unsigned c = threadIdx.x; c < classes; c += blockDim.x)
    if (passes(c)) {
      atomicMin(room, c);
      break;
    }
  __syncthreads();
  const unsigned found = *room;
  __syncthreads();  // the next call writes `room` again
  return found;
}

/// What can be wrong with the logits of one side.
struct side_faults {
  loss_fault_kind nan, infinite, all_masked;
};
inline constexpr side_faults student_faults = {loss_fault_kind::student_nan, loss_fault_kind::student_infinite,
                                               loss_fault_kind::student_all_masked};
inline constexpr side_faults teacher_faults = {loss_fault_kind::teacher_nan, loss_fault_kind::teacher_infinite,
                                               loss_fault_kind::teacher_all_masked};

/// The first NaN or plus infinity of the logits of a row that are here, or, where all are, that all are masked; all
/// threads of the block must call.
template <class Logit, class Row>
__device__ loss_fault_place diagnose_logits(const Logit& x, const Row& row, side_faults faults, unsigned* room) {
  const unsigned classes = row.classes();
  const unsigned c = first_class(
      classes,
      [&](unsigned i) {
        const float value = x(i);
        return value != value || value == float_infinity;
      },
      room);
  if (c != no_class) return {x(c) == float_infinity ? faults.infinite : faults.nan, row.first_class() + c};
  if (classes != row.all_classes()) return {loss_fault_kind::none, 0};
  const bool masked = first_class(
                          classes, [&](unsigned i) { return x(i) != -float_infinity; }, room) == no_class;
  return {masked ? faults.all_masked : loss_fault_kind::none, 0};
}

/// Of the classes that one side alone masks the one that the other holds likeliest, the first of equals; no_class where
/// there is none. All threads of the block must call. `room` is shared memory.
template <class Masked, class Other>
__device__ unsigned likeliest_masked(unsigned classes, const Masked& masked, const Other& other,
                                     unsigned long long* room) {
  // The largest of (logit as an ordered integer, inverted class).
  if (threadIdx.x == 0) *room = 0;
  __syncthreads();
  for (unsigned c = threadIdx.x; c < classes; c += blockDim.x) {
    const float x = other(c);
    if (masked(c) != -float_infinity || x == -float_infinity) continue;
    const std::uint32_t bits = float_to_bits(x + 0.0f);  // minus 0 is 0
    const std::uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    atomicMax(room, (static_cast<unsigned long long>(ordered) << 32) | ~c);
  }
  __syncthreads();
  const unsigned long long found = *room;
  __syncthreads();  // the next call writes `room` again
  return found == 0 ? no_class : static_cast<unsigned>(~found);
}

/// Finds out why a row has no finite loss, as the CPU does; all threads of the block must call.
template <class Loss, class Batch>
__device__ loss_fault_place diagnose_row(const row_of_batch<Batch>& row) {
  using enum loss_fault_kind;
  __shared__ unsigned room;
  __shared__ unsigned long long wide_room;
  const unsigned classes = row.classes(), first = row.first_class();
  const row_label label = row.template label<Loss>();
  if (label.out_of_range) return {label_out_of_range, static_cast<std::uint64_t>(std::int64_t{row.label_value})};
  if (!row.weight_is_good()) return {row_weight, 0};
  const auto student = [&](unsigned c) { return row.student_logit(c); };
  const auto teacher = [&](unsigned c) { return row.teacher_logit(c); };
  const loss_fault_place in_student = diagnose_logits(student, row, student_faults, &room);
  if (in_student.kind != none) return in_student;
  if constexpr (Loss::needs_teacher) {
    const loss_fault_place in_teacher = diagnose_logits(teacher, row, teacher_faults, &room);
    if (in_teacher.kind != none) return in_teacher;
  }
  if (Loss::needs_label && label.student == -float_infinity) return {label_masked, first + label.at};
  if constexpr (Loss::infinite_where_student_is_0) {
    const unsigned c = likeliest_masked(classes, student, teacher, &wide_room);
    if (c != no_class) return {class_masked_in_student_only, first + c};
  }
  if constexpr (Loss::infinite_where_teacher_is_0) {
    const unsigned c = likeliest_masked(classes, teacher, student, &wide_room);
    if (c != no_class) return {class_masked_in_teacher_only, first + c};
  }
  return {overflow, 0};
}

/// The part of a batch that one thread has seen.
template <class Loss>
struct batch_sums {
  double values[Loss::values] = {};
  unsigned long long hits = 0;         // correct, and agrees in the upper half
  unsigned counted = 0;                // rows that are not ignored
  unsigned first_at_fault = no_class;  // row

  __device__ void add(const loss_row<Loss>& row, float weight, unsigned index) {
    if (!row.counts && row.finite) return;
    if (!row.finite) {
      if (index < first_at_fault) first_at_fault = index;
      return;
    }
#pragma unroll
    for (std::size_t i = 0; i < Loss::values; ++i) values[i] += double{weight} * row.values[i];
    counted += 1;
    hits += (static_cast<unsigned long long>(row.agrees) << 32) + static_cast<unsigned>(row.correct);
  }
  __device__ batch_sums over_warp() const {
    batch_sums all;
#pragma unroll
    for (std::size_t i = 0; i < Loss::values; ++i) all.values[i] = warp_sum(values[i]);
    all.hits = warp_sum(hits);
    all.counted = warp_sum(counted);
    all.first_at_fault = __reduce_min_sync(full_warp, first_at_fault);
    return all;
  }
};

/// Adds a batch without a fault: as many times its terms, as they were divided, as it has rows that count.
template <class Loss>
__device__ void add_batch(const Loss& loss, const batch_sums<Loss>& all, double divisor, formula::loss_sums* sums) {
  double scaled[Loss::values];
  const double total = scale_values(loss, all.values, scaled);
  const auto counted = static_cast<double>(all.counted);
  const double share = counted == divisor ? 1 : counted / divisor;
  sums->total += share * total;
#pragma unroll
  for (std::size_t k = 0; k < Loss::values; ++k) sums->values[k] += share * scaled[k];
  sums->correct += static_cast<double>(all.hits & 0xffffffffu);
  sums->agrees += static_cast<double>(all.hits >> 32);
  sums->rows += all.counted;
  sums->steps += 1;
}

/// Adds the batch to the sums, or puts its first fault there; all threads of the block must call.
template <class Loss, class Batch>
__device__ void fold_batch(const batch_sums<Loss>& mine, const Loss* loss, const Batch& batch,
                           const counted_rows* counted, formula::loss_sums* sums) {
  __shared__ double values[Loss::values][warp_size];
  __shared__ unsigned long long hits[warp_size];
  __shared__ unsigned rows[warp_size], first_at_fault[warp_size];
  __shared__ unsigned fault_row;
  const unsigned lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  const batch_sums<Loss> of_warp = mine.over_warp();
  if (lane == 0) {
#pragma unroll
    for (std::size_t i = 0; i < Loss::values; ++i) values[i][warp] = of_warp.values[i];
    hits[warp] = of_warp.hits;
    rows[warp] = of_warp.counted;
    first_at_fault[warp] = of_warp.first_at_fault;
  }
  __syncthreads();
  if (warp == 0) {
    batch_sums<Loss> part;
    if (lane < blockDim.x / warp_size) {
#pragma unroll
      for (std::size_t i = 0; i < Loss::values; ++i) part.values[i] = values[i][lane];
      part.hits = hits[lane];
      part.counted = rows[lane];
      part.first_at_fault = first_at_fault[lane];
    }
    const batch_sums<Loss> all = part.over_warp();
    if (lane == 0) {
      const bool stopped = sums->fault_kind != loss_fault_kind::none;
      fault_row = stopped ? no_class : all.first_at_fault;
      if (!stopped && all.first_at_fault == no_class) add_batch(*loss, all, divisor_of(batch, counted), sums);
    }
  }
  __syncthreads();
  if (fault_row == no_class) return;
  const loss_fault_place place = diagnose_row<Loss>(row_of_batch<Batch>(batch, fault_row));
  if (threadIdx.x != 0) return;
  sums->fault_kind = place.kind;
  sums->fault_row = fault_row;
  sums->fault_class = place.class_index;
  sums->fault_step = sums->steps;
}

inline constexpr unsigned fold_loss_threads = 1024;

/// @param terms [rows]
template <class Loss, class Batch>
KD_KERNEL void __launch_bounds__(fold_loss_threads, 1)
    fold_loss_rows(const Batch batch, const Loss* loss, const counted_rows* counted, const loss_row<Loss>* terms,
                   formula::loss_sums* sums) {
  constexpr unsigned at_once = Loss::values <= 3 ? 4 : 2;  // loads that do not wait for one another
  batch_sums<Loss> mine;
  for (std::size_t first = threadIdx.x; first < batch.rows; first += at_once * fold_loss_threads) {
    loss_row<Loss> rows[at_once];
    float weights[at_once];
#pragma unroll
    for (unsigned i = 0; i < at_once; ++i) {
      const std::size_t row = first + i * fold_loss_threads;
      if (row < batch.rows) {
        rows[i] = terms[row];
        weights[i] = row_of_batch<Batch>(batch, row).weight();
      }
    }
#pragma unroll
    for (unsigned i = 0; i < at_once; ++i)
      mine.add(rows[i], weights[i], static_cast<unsigned>(first + i * fold_loss_threads));
  }
  fold_batch(mine, loss, batch, counted, sums);
}

/// Puts a loss that comes with the launch where the other kernels read it: one thread.
template <class Loss>
KD_KERNEL void place_loss(const Loss loss, Loss* to) {
  *to = loss;
}

/// What a batch divides by where that is not known before: one block, in a fixed order.
template <class Batch>
KD_KERNEL void __launch_bounds__(fold_loss_threads) count_rows(const Batch batch, counted_rows* counted) {
  __shared__ double room[2][fold_loss_threads / warp_size];
  double rows = 0, weights = 0;
  for (std::size_t row = threadIdx.x; row < batch.rows; row += fold_loss_threads) {
    const row_of_batch<Batch> at(batch, row);
    if (at.ignored) continue;
    rows += 1;
    weights += double{at.weight()};
  }
  rows = block_sum<fold_loss_threads>(rows, room[0]);
  weights = block_sum<fold_loss_threads>(weights, room[1]);
  if (threadIdx.x == 0) *counted = {rows, weights};
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
