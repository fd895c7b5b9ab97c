/// The sums of a loss over rows and steps, and what is wrong with a row that has no finite loss.
///
///   sums += sum over the rows of (total, ce, T^2 kd, T^2 soft, correct, agrees), unless a row is at fault
/// Double precision in a fixed order: the same bits in every run. fold_loss_rows reads 24 bytes per row with one block
/// of 256 threads (1.2 KB of shared memory); a faulty row is read a second time, by class.
///
/// Limits: rows and classes below 2^31. Checked in tests/cuda/distillation_test.cpp.
#pragma once

#include "kd/kernel/loss_row.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// kd::loss_meter in the device's memory: sums over the rows of all steps so far. `steps` counts those without a fault;
/// the first fault sticks, and nothing is added after it.
struct loss_sums {
  double total, cross_entropy, kd, soft_cross_entropy, correct, agrees;
  std::uint64_t rows, steps;
  std::uint32_t fault_kind, reserved;  // loss_fault as a number; 0 is none
  std::uint64_t fault_row, fault_class, fault_step;
};

/// kd::loss_fault_kind, number by number.
enum class loss_fault : std::uint32_t {
  none,
  student_nan,
  student_infinite,
  student_all_masked,
  teacher_nan,
  teacher_infinite,
  teacher_all_masked,
  label_masked,
  class_masked_in_student_only,
  overflow,
  label_out_of_range,
};

struct loss_fault_place {
  loss_fault kind;
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

/// What diagnose_logits relies on: the teacher's kinds are the student's, in their order, further on.
inline constexpr unsigned teacher_faults = 3;
static_assert(static_cast<unsigned>(loss_fault::student_nan) == 1 &&
                  static_cast<unsigned>(loss_fault::student_infinite) == 2 &&
                  static_cast<unsigned>(loss_fault::student_all_masked) == 3 &&
                  static_cast<unsigned>(loss_fault::teacher_nan) == 1 + teacher_faults &&
                  static_cast<unsigned>(loss_fault::teacher_infinite) == 2 + teacher_faults &&
                  static_cast<unsigned>(loss_fault::teacher_all_masked) == 3 + teacher_faults,
              "kd::kernel: diagnose_logits counts on this order of loss_fault");

/// The first NaN or plus infinity of a row of logits; kinds are those of the student (1, 2, 3) plus `offset`.
template <class Logit>
__device__ loss_fault_place diagnose_logits(const Logit* x, unsigned classes, unsigned offset, unsigned* room) {
  const unsigned c = first_class(
      classes,
      [&](unsigned i) {
        const float value = to_float(x[i]);
        return value != value || value == float_infinity;
      },
      room);
  if (c != no_class) {
    const bool nan = to_float(x[c]) != float_infinity;
    return {static_cast<loss_fault>((nan ? 1u : 2u) + offset), c};
  }
  const bool masked = first_class(
                          classes, [&](unsigned i) { return to_float(x[i]) != -float_infinity; }, room) == no_class;
  return {masked ? static_cast<loss_fault>(3u + offset) : loss_fault::none, 0};
}

/// Finds out why a row has no finite loss, as kd::cpu::detail::diagnose; all threads of the block must call.
/// @param teacher null for cross entropy alone
template <class Logit>
__device__ loss_fault_place diagnose_row(unsigned classes, const Logit* student, const Logit* teacher,
                                         std::int32_t label) {
  __shared__ unsigned room;
  __shared__ unsigned long long likeliest;
  if (static_cast<unsigned>(label) >= classes)
    return {loss_fault::label_out_of_range, static_cast<std::uint64_t>(std::int64_t{label})};
  const loss_fault_place in_student = diagnose_logits(student, classes, 0, &room);
  if (in_student.kind != loss_fault::none) return in_student;
  if (teacher != nullptr) {
    const loss_fault_place in_teacher = diagnose_logits(teacher, classes, teacher_faults, &room);
    if (in_teacher.kind != loss_fault::none) return in_teacher;
  }
  if (to_float(student[label]) == -float_infinity) return {loss_fault::label_masked, static_cast<std::uint64_t>(label)};
  if (teacher == nullptr) return {loss_fault::overflow, 0};

  // Of the classes masked in the student alone the one that the teacher holds likeliest, the first of equals: the
  // largest of (logit as an ordered integer, inverted class).
  if (threadIdx.x == 0) likeliest = 0;
  __syncthreads();
  for (unsigned c = threadIdx.x; c < classes; c += blockDim.x) {
    const float t = to_float(teacher[c]);
    if (to_float(student[c]) != -float_infinity || t == -float_infinity) continue;
    const std::uint32_t bits = float_to_bits(t + 0.0f);  // minus 0 is 0
    const std::uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    atomicMax(&likeliest, (static_cast<unsigned long long>(ordered) << 32) | ~c);
  }
  __syncthreads();
  if (likeliest == 0) return {loss_fault::overflow, 0};
  return {loss_fault::class_masked_in_student_only, static_cast<unsigned>(~likeliest)};
}

/// The part of a batch that one thread has seen.
struct batch_sums {
  double cross_entropy = 0, kd = 0, soft_cross_entropy = 0;
  unsigned long long hits = 0;         // correct, and agrees in the upper half
  unsigned first_at_fault = no_class;  // row

  __device__ void add(const loss_row& row, unsigned index) {
    if (!is_finite(row)) {
      if (index < first_at_fault) first_at_fault = index;
      return;
    }
    cross_entropy += row.cross_entropy;
    kd += double{row.kd};
    soft_cross_entropy += double{row.soft_cross_entropy};
    hits += (static_cast<unsigned long long>(row.agrees) << 32) + row.correct;
  }
  __device__ batch_sums over_warp() const {
    return {warp_sum(cross_entropy), warp_sum(kd), warp_sum(soft_cross_entropy), warp_sum(hits),
            __reduce_min_sync(full_warp, first_at_fault)};
  }
};

/// Adds the batch to the sums, or puts its first fault there; all threads of the block must call.
template <bool Teacher, class Logit>
__device__ void fold_batch(const batch_sums& mine, std::size_t rows, std::size_t classes, const Logit* student,
                           const Logit* teacher, const std::int32_t* labels, const float* options, loss_sums* sums) {
  __shared__ double terms[3][warp_size];
  __shared__ unsigned long long hits[warp_size];
  __shared__ unsigned first_at_fault[warp_size];
  __shared__ unsigned fault_row;
  const unsigned lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  const batch_sums of_warp = mine.over_warp();
  if (lane == 0) {
    terms[0][warp] = of_warp.cross_entropy;
    terms[1][warp] = of_warp.kd;
    terms[2][warp] = of_warp.soft_cross_entropy;
    hits[warp] = of_warp.hits;
    first_at_fault[warp] = of_warp.first_at_fault;
  }
  __syncthreads();
  if (warp == 0) {
    batch_sums part;
    if (lane < blockDim.x / warp_size)
      part = {terms[0][lane], terms[1][lane], terms[2][lane], hits[lane], first_at_fault[lane]};
    const batch_sums all = part.over_warp();
    if (lane == 0) {
      const bool stopped = sums->fault_kind != 0;
      fault_row = stopped ? no_class : all.first_at_fault;
      if (!stopped && all.first_at_fault == no_class) {
        double square = 1, kd_weight = 0, ce_weight = 1;
        if constexpr (Teacher) {
          square = double{options[loss_option::temperature]} * double{options[loss_option::temperature]};
          kd_weight = double{options[loss_option::kd_weight]};
          ce_weight = double{options[loss_option::ce_weight]};
        }
        sums->total += ce_weight * all.cross_entropy + kd_weight * (square * all.kd);
        sums->cross_entropy += all.cross_entropy;
        sums->kd += square * all.kd;
        sums->soft_cross_entropy += square * all.soft_cross_entropy;
        sums->correct += static_cast<double>(all.hits & 0xffffffffu);
        sums->agrees += static_cast<double>(all.hits >> 32);
        sums->rows += rows;
        sums->steps += 1;
      }
    }
  }
  __syncthreads();
  if (fault_row == no_class) return;
  const std::size_t at = fault_row * classes;
  const loss_fault_place place =
      diagnose_row(static_cast<unsigned>(classes), student + at, Teacher ? teacher + at : nullptr, labels[fault_row]);
  if (threadIdx.x != 0) return;
  sums->fault_kind = static_cast<std::uint32_t>(place.kind);
  sums->fault_row = fault_row;
  sums->fault_class = place.class_index;
  sums->fault_step = sums->steps;
}

inline constexpr unsigned fold_loss_threads = 256;

/// @param terms [rows]
/// @param teacher null and options not read where Teacher is false
template <bool Teacher, class Logit>
KD_KERNEL void __launch_bounds__(fold_loss_threads, 1)
    fold_loss_rows(std::size_t rows, std::size_t classes, const Logit* student, const Logit* teacher,
                   const std::int32_t* labels, const float* options, const loss_row* terms, loss_sums* sums) {
  batch_sums mine;
  for (std::size_t row = threadIdx.x; row < rows; row += fold_loss_threads)
    mine.add(terms[row], static_cast<unsigned>(row));
  fold_batch<Teacher>(mine, rows, classes, student, teacher, labels, options, sums);
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
