/// Rows of logits that stay in the registers of a warp, or of a quarter of one: every logit is read once, the gradient
/// written once. The kernels are in distillation.cuh and cross_entropy.cuh.
///
/// A row of up to Lanes * Values classes belongs to Lanes threads with Values classes each. With 16-byte loads (8 in
/// bf16; Values a multiple of 4) lane l holds classes 4 (j Lanes + l) to 4 (j Lanes + l) + 3, j = 0, 1, ...; without,
/// classes j Lanes + l. Registers without a class hold minus infinity. Sums go over a lane's registers, then over the
/// lanes by a fixed tree.
#pragma once

#include "kd/kernel/loss_row.cuh"
#include "kd/kernel/loss_sums.cuh"
#include "kd/kernel/pack.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// Sum, maximum and minimum over groups of Lanes threads; every thread of the warp must call.
template <unsigned Lanes>
__device__ float lanes_sum(float x) {
#pragma unroll
  for (unsigned offset = Lanes / 2; offset > 0; offset /= 2)
    x += __shfl_xor_sync(full_warp, x, static_cast<int>(offset));
  return x;
}
template <unsigned Lanes>
__device__ float lanes_max(float x) {
#pragma unroll
  for (unsigned offset = Lanes / 2; offset > 0; offset /= 2)
    x = fmaxf(x, __shfl_xor_sync(full_warp, x, static_cast<int>(offset)));
  return x;
}
template <unsigned Lanes>
__device__ unsigned lanes_min(unsigned x) {
#pragma unroll
  for (unsigned offset = Lanes / 2; offset > 0; offset /= 2) {
    const unsigned other = __shfl_xor_sync(full_warp, x, static_cast<int>(offset));
    x = other < x ? other : x;
  }
  return x;
}

/// Where a row lies in the registers of its lanes.
template <unsigned Lanes, unsigned Values>
struct register_row {
  unsigned lane, classes;  // no classes where the row does not exist
  bool wide;

  __device__ unsigned class_of(unsigned i) const {
    if constexpr (Values % 4 == 0)
      if (wide) return (i / 4 * Lanes + lane) * 4 + i % 4;
    return i * Lanes + lane;
  }
  template <class Logit>
  __device__ void load(const Logit* row, float (&x)[Values]) const {
    if constexpr (Values % 4 == 0) {
      if (wide) {
#pragma unroll
        for (unsigned i = 0; i < Values; i += 4) {
          float four[4] = {-float_infinity, -float_infinity, -float_infinity, -float_infinity};
          if (class_of(i) < classes) load_floats<4>(row + class_of(i), four);
#pragma unroll
          for (unsigned k = 0; k < 4; ++k) x[i + k] = four[k];
        }
        return;
      }
    }
#pragma unroll
    for (unsigned i = 0; i < Values; ++i) {
      const unsigned c = i * Lanes + lane;
      x[i] = c < classes ? to_float(row[c]) : -float_infinity;
    }
  }
  template <class Logit>
  __device__ void store(const float (&x)[Values], Logit* row) const {
    if constexpr (Values % 4 == 0) {
      if (wide) {
#pragma unroll
        for (unsigned i = 0; i < Values; i += 4) {
          const float four[4] = {x[i], x[i + 1], x[i + 2], x[i + 3]};
          if (class_of(i) < classes) store_floats<4>(four, row + class_of(i));
        }
        return;
      }
    }
#pragma unroll
    for (unsigned i = 0; i < Values; ++i) {
      const unsigned c = i * Lanes + lane;
      if (c < classes) row[c] = from_float<Logit>(x[i]);
    }
  }
  /// The first class with this logit, no_class where none has it.
  __device__ unsigned first_class_with(float logit, const float (&x)[Values]) const {
    unsigned found = no_class;
#pragma unroll
    for (unsigned i = Values; i-- > 0;)
      if (x[i] == logit) found = class_of(i);
    return lanes_min<Lanes>(found);
  }
};

/// One row; every thread of the warp must call. Returns its terms in all its lanes. d_student may be null, or the
/// student's row; it is not written where the row is at fault.
template <bool Teacher, unsigned Lanes, unsigned Values, class Logit>
__device__ loss_row loss_in_registers(const register_row<Lanes, Values>& place, const Logit* student,
                                      const Logit* teacher, std::int32_t label, const loss_weights& weights,
                                      Logit* d_student) {
  float z[Values], t[Teacher ? Values : 1], hard[Teacher ? Values : 1];
  // In front of the first shuffle: the gradient may overwrite the logits only behind it.
  const float label_logit = logit_of_label(student, place.classes, label);
  place.load(student, z);
  if constexpr (Teacher) place.load(teacher, t);

  row_maxima maxima;
#pragma unroll
  for (unsigned i = 0; i < Values; ++i) {
    maxima.student = fmaxf(maxima.student, z[i]);
    if constexpr (Teacher) maxima.teacher = fmaxf(maxima.teacher, t[i]);
  }
  maxima.student = lanes_max<Lanes>(maxima.student);
  maxima.student_class = place.first_class_with(maxima.student, z);
  if constexpr (Teacher) {
    maxima.teacher = lanes_max<Lanes>(maxima.teacher);
    maxima.teacher_class = place.first_class_with(maxima.teacher, t);
  }

  const softening soft(weights.temperature);
  row_sums sums;
#pragma unroll
  for (unsigned i = 0; i < Values; ++i) {
    const float dz = z[i] - maxima.student;
    z[i] = soft(dz);
    sums.student = __fadd_rn(sums.student, z[i]);
    if constexpr (Teacher) {
      hard[i] = hard_exponential(dz);
      sums.hard += hard[i];
      const float dt = t[i] - maxima.teacher;
      t[i] = soft(dt);
      sums.teacher = __fadd_rn(sums.teacher, t[i]);
      // Both may be infinite where the teacher's probability is 0, and 0 * infinity counts as 0. The difference is
      // taken before the division by T: equal rows then give exactly 0.
      const bool zero = dt < soft.underflow;
      sums.gap += t[i] * (zero ? 0.0f : dt - dz);
      sums.energy += t[i] * (zero ? 0.0f : dt);
    }
  }
  sums.student = lanes_sum<Lanes>(sums.student);
  if constexpr (Teacher) {
    sums.hard = lanes_sum<Lanes>(sums.hard);
    sums.teacher = lanes_sum<Lanes>(sums.teacher);
    sums.gap = lanes_sum<Lanes>(sums.gap);
    sums.energy = lanes_sum<Lanes>(sums.energy);
  } else {
    sums.hard = sums.student;
  }

  const loss_row row = terms_of_row<Teacher>(maxima, sums, soft, label, label_logit);
  if (d_student == nullptr || !is_finite(row)) return row;
  const gradient_factors factors(weights, sums);
#pragma unroll
  for (unsigned i = 0; i < Values; ++i) {
    const bool is_label = place.class_of(i) == static_cast<unsigned>(label);
    if constexpr (Teacher)
      z[i] = factors.operator()<true>(z[i], hard[i], t[i], is_label);
    else
      z[i] = factors.operator()<false>(z[i], z[i], 0.0f, is_label);
  }
  place.store(z, d_student);
  return row;
}

/// Threads of a block: 128 where a fold follows in a launch of its own, up to 1,024 for one block that folds as well.
template <bool Fold>
inline constexpr unsigned register_rows_threads = Fold ? 1024 : 128;
/// Blocks that must fit a multiprocessor. Three leave 168 registers for a thread; 32 floats of each tensor want 213
/// (nvcc 13.0, sm_90) and would spill. Without a number here nvcc spills the small kernels.
template <unsigned Values, bool Fold, class Logit>
inline constexpr unsigned register_rows_blocks = Fold || Values * sizeof(Logit) > 64 ? 1 : 3;

/// The rows of this block, blockDim.x / Lanes at a time.
/// @param terms [rows], written where Fold is false
/// @param sums where Fold is true, which takes a grid of one block
template <bool Teacher, unsigned Lanes, unsigned Values, bool Fold, class Logit>
__device__ void loss_of_register_rows(std::size_t rows, std::size_t classes, bool wide, const Logit* student,
                                      const Logit* teacher, const std::int32_t* labels, const float* options,
                                      Logit* d_student, loss_row* terms, loss_sums* sums) {
  const loss_weights weights = loss_weights::of<Teacher>(options, rows);
  const unsigned lane = threadIdx.x % Lanes, group = threadIdx.x / Lanes, groups = blockDim.x / Lanes;
  batch_sums mine;
  for (std::size_t first = std::size_t{blockIdx.x} * groups; first < rows; first += std::size_t{gridDim.x} * groups) {
    const std::size_t row = first + group;
    const bool exists = row < rows;
    const std::size_t at = exists ? row * classes : 0;
    const register_row<Lanes, Values> place{lane, exists ? static_cast<unsigned>(classes) : 0, wide};
    const loss_row result =
        loss_in_registers<Teacher>(place, student + at, Teacher ? teacher + at : nullptr, exists ? labels[row] : -1,
                                   weights, d_student == nullptr ? nullptr : d_student + at);
    if (!exists || lane != 0) continue;
    if constexpr (Fold)
      mine.add(result, static_cast<unsigned>(row));
    else
      terms[row] = result;
  }
  if constexpr (Fold) fold_batch<Teacher>(mine, rows, classes, student, teacher, labels, options, sums);
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
