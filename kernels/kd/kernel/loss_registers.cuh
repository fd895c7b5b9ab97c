/// Rows of logits that stay in the registers of a warp, or of a quarter of one: every logit is read once, the gradient
/// written once. The kernel is in logit_loss.cuh.
///
/// A row of up to Lanes * Values classes belongs to Lanes threads with Values classes each. Where the number of classes
/// and Values are multiples of 4, lane l holds classes 4 (j Lanes + l) to 4 (j Lanes + l) + 3, j = 0, 1, ..., and
/// arrays that lie well are accessed 16 bytes at a time (8 in formats of 16 bits); otherwise classes j Lanes + l. Who
/// holds a class never depends on addresses. Registers without a class hold minus infinity. Sums go over a lane's
/// registers, then over the lanes by a fixed tree.
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
template <unsigned Lanes, std::size_t Size>
__device__ void lanes_sum(formula::few<float, Size>& sums) {
#pragma unroll
  for (std::size_t i = 0; i != Size; ++i) sums.at[i] = lanes_sum<Lanes>(sums.at[i]);
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

/// Which arrays of a batch can be accessed four logits at a time.
struct wide_arrays {
  bool student, teacher, gradient;
};

/// Where a row lies in the registers of its lanes.
template <unsigned Lanes, unsigned Values>
struct register_row {
  unsigned lane, classes;
  bool by_fours;

  __device__ register_row(unsigned lane_, unsigned classes_)
      : lane(lane_), classes(classes_), by_fours(Values % 4 == 0 && classes_ % 4 == 0) {}

  __device__ unsigned class_of(unsigned i) const {
    if constexpr (Values % 4 == 0)
      if (by_fours) return class_by_fours(i);
    return i * Lanes + lane;
  }
  __device__ unsigned class_by_fours(unsigned i) const { return (i / 4 * Lanes + lane) * 4 + i % 4; }
  /// The classes below `end`; minus infinity for the others.
  template <class Logit>
  __device__ void load(const Logit* row, unsigned end, bool wide, float (&x)[Values]) const {
    if constexpr (Values % 4 == 0) {
      if (by_fours) {
#pragma unroll
        for (unsigned i = 0; i < Values; i += 4) {
          const unsigned c = class_by_fours(i);
          float four[4] = {-float_infinity, -float_infinity, -float_infinity, -float_infinity};
          if (wide) {
            if (c < end) load_floats<4>(row + c, four);
          } else {
#pragma unroll
            for (unsigned k = 0; k < 4; ++k)
              if (c + k < end) four[k] = to_float(row[c + k]);
          }
#pragma unroll
          for (unsigned k = 0; k < 4; ++k) x[i + k] = four[k];
        }
        return;
      }
    }
#pragma unroll
    for (unsigned i = 0; i < Values; ++i) {
      const unsigned c = i * Lanes + lane;
      x[i] = c < end ? to_float(row[c]) : -float_infinity;
    }
  }
  template <class Logit>
  __device__ void store(const float (&x)[Values], bool wide, bool adds, Logit* row) const {
    if constexpr (Values % 4 == 0) {
      if (by_fours) {
#pragma unroll
        for (unsigned i = 0; i < Values; i += 4) {
          const unsigned c = class_by_fours(i);
          if (c >= classes) continue;
          float four[4] = {x[i], x[i + 1], x[i + 2], x[i + 3]};
          if (adds) {
#pragma unroll
            for (unsigned k = 0; k < 4; ++k) four[k] += to_float(row[c + k]);
          }
          if (wide) {
            store_floats<4>(four, row + c);
          } else {
#pragma unroll
            for (unsigned k = 0; k < 4; ++k) row[c + k] = from_float<Logit>(four[k]);
          }
        }
        return;
      }
    }
#pragma unroll
    for (unsigned i = 0; i < Values; ++i) {
      const unsigned c = i * Lanes + lane;
      if (c < classes) row[c] = from_float<Logit>(adds ? to_float(row[c]) + x[i] : x[i]);
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
  /// Of the logits that are not masked; none where the loss does not ask for it.
  template <class Loss>
  __device__ formula::logit_spread<float> spread(const float (&x)[Values], float first_logit) const {
    formula::logit_spread<float> s = {};
    if constexpr (Loss::standardises) {
      s.from = formula::is_masked(first_logit) ? 0.0f : first_logit;
#pragma unroll
      for (unsigned i = 0; i < Values; ++i) {
        const bool masked = formula::is_masked(x[i]);
        s.mean += masked ? 0.0f : x[i] - s.from;
        s.count += masked ? 0.0f : 1.0f;
      }
      s.count = lanes_sum<Lanes>(s.count);
      s.mean = lanes_sum<Lanes>(s.mean) / s.count;
      float squares = 0;
#pragma unroll
      for (unsigned i = 0; i < Values; ++i) {
        const float off = x[i] - s.from - s.mean;
        squares += formula::is_masked(x[i]) ? 0.0f : off * off;
      }
      s.deviation = deviation_of(lanes_sum<Lanes>(squares), s.count);
    }
    return s;
  }
  /// Makes a class's logit minus infinity.
  __device__ void mask(unsigned class_index, float (&x)[Values]) const {
#pragma unroll
    for (unsigned i = 0; i < Values; ++i)
      if (class_of(i) == class_index) x[i] = -float_infinity;
  }
};

/// One row; every thread of the warp must call. Returns its terms in all its lanes. Nothing is read where the row is
/// ignored, and no gradient is written where it is at fault.
template <class Loss, unsigned Lanes, unsigned Values, class Batch>
__device__ loss_row<Loss> loss_in_registers(const register_row<Lanes, Values>& place, const Loss& loss,
                                            const loss_weights<Loss>& weights, const row_of_batch<Batch>& at,
                                            bool exists, const wide_arrays& wide) {
  constexpr bool takes_teacher = Loss::needs_teacher;
  constexpr unsigned logits = Loss::reads_logits ? Values : 1;
  // Logits, and then exponentials.
  float z[Values], t[takes_teacher ? Values : 1], hard[takes_hard_exponentials<Loss> ? Values : 1];
  float gap[takes_gap<Loss> ? Values : 1], student_logit[logits], teacher_logit[logits];
  float slope[Loss::caps ? Values : 1];
  if constexpr (Lanes == warp_size) {
    if (at.ignored || !exists) {
#pragma unroll
      for (unsigned i = 0; i < Values; ++i) z[i] = 0;
      if (exists && at.wants_gradient() && !at.batch.add_to_gradient)
        place.store(z, wide.gradient, false, at.gradient());
      return {};
    }
  }
  const bool absent = Lanes != warp_size && (at.ignored || !exists);  // its lanes go along with those of their warp
  // Before the first shuffle: the gradient may overwrite the logits only after it.
  const row_label label = absent ? row_label{} : label_seen(loss, at);
  place.load(at.student(), absent ? 0 : at.classes(), wide.student, z);
  if constexpr (takes_teacher) place.load(at.teacher(), absent ? 0 : at.teacher_classes(), wide.teacher, t);
  if constexpr (Loss::caps) {
#pragma unroll
    for (unsigned i = 0; i < Values; ++i) {
      slope[i] = formula::student_slope<float_math>(loss, z[i]);
      z[i] = student_seen(loss, z[i]);
      if constexpr (takes_teacher) t[i] = teacher_seen(loss, t[i]);
    }
  }
  if constexpr (Loss::reads_logits) {
#pragma unroll
    for (unsigned i = 0; i < Values; ++i) {
      student_logit[i] = z[i];
      teacher_logit[i] = takes_teacher ? t[i] : 0.0f;
    }
  }
  row_spread spread;
  if constexpr (Loss::standardises) {
    spread.student = place.template spread<Loss>(z, absent ? 0.0f : student_seen(loss, at.student_logit(0)));
    spread.teacher = place.template spread<Loss>(t, absent ? 0.0f : teacher_seen(loss, at.teacher_logit(0)));
  }
  if constexpr (Loss::label_apart) {
    place.mask(label.at, z);
    if constexpr (takes_teacher) place.mask(label.at, t);
  }

  row_maxima maxima;
#pragma unroll
  for (unsigned i = 0; i < Values; ++i) {
    maxima.student = fmaxf(maxima.student, z[i]);
    if constexpr (takes_teacher) maxima.teacher = fmaxf(maxima.teacher, t[i]);
  }
  maxima.student = lanes_max<Lanes>(maxima.student);
  maxima.student_class = place.first_class_with(maxima.student, z);
  if constexpr (takes_teacher) {
    maxima.teacher = lanes_max<Lanes>(maxima.teacher);
    maxima.teacher_class = place.first_class_with(maxima.teacher, t);
  }

  const softenings soft(loss, spread);
  formula::sums<Loss, float> sums;
#pragma unroll
  for (unsigned i = 0; i < Values; ++i) {
    const float dz = z[i] - maxima.student;
    if constexpr (Loss::softens || Loss::hardens) {
      z[i] = soft.student(dz);
      sums.student = __fadd_rn(sums.student, z[i]);
    }
    if constexpr (takes_hard_exponentials<Loss>) {
      hard[i] = hard_exponential(dz);
      sums.hard += hard[i];
    }
    if constexpr (Loss::softens) {
      float dt = 0, teacher_e = 0;
      if constexpr (takes_teacher_exponentials<Loss>) {
        dt = t[i] - maxima.teacher;
        teacher_e = t[i] = soft.teacher(dt);
        sums.teacher = __fadd_rn(sums.teacher, teacher_e);
      }
      // The gap is taken before the division by T: equal rows then give exactly 0.
      const float between = soft.gap(dz, dt);
      formula::add_moments<Loss, false>(sums.moments, z[i], teacher_e, dz, dt, between, z[i] == 0, teacher_e == 0);
      if constexpr (takes_gap<Loss>) gap[i] = between;
    }
  }
  if constexpr (Loss::logit_sums > 0) {
#pragma unroll
    for (unsigned i = 0; i < Values; ++i)
      if (place.class_of(i) < place.classes)
        formula::add_logits(loss, class_numbers{.student_logit = student_logit[i], .teacher_logit = teacher_logit[i]},
                            sums.logits);
    lanes_sum<Lanes>(sums.logits);
  }
  if constexpr (Loss::softens || Loss::hardens) sums.student = lanes_sum<Lanes>(sums.student);
  if constexpr (takes_hard_exponentials<Loss>)
    sums.hard = lanes_sum<Lanes>(sums.hard);
  else
    sums.hard = sums.student;
  if constexpr (takes_teacher_exponentials<Loss>) sums.teacher = lanes_sum<Lanes>(sums.teacher);
  lanes_sum<Lanes>(sums.moments);

  const auto numbers_of = [&](unsigned i) {
    class_numbers c;
    if constexpr (Loss::softens || Loss::hardens) c.student_e = z[i];
    if constexpr (takes_teacher_exponentials<Loss>) c.teacher_e = t[i];
    if constexpr (takes_hard_exponentials<Loss>)
      c.hard_e = hard[i];
    else if constexpr (Loss::hardens)
      c.hard_e = z[i];
    if constexpr (takes_gap<Loss>) c.gap = gap[i];
    if constexpr (Loss::reads_logits) {
      c.student_logit = student_logit[i];
      c.teacher_logit = teacher_logit[i];
    }
    return c;
  };
  whole_row<Loss> row(loss, soft, maxima, sums, label, spread, at.classes());
  if constexpr (Loss::probability_sums > 0) {
    formula::few<float, Loss::probability_sums> second = {};
#pragma unroll
    for (unsigned i = 0; i < Values; ++i)
      if (place.class_of(i) < place.classes)
        formula::add_probabilities(loss, row.terms, row.see(numbers_of(i)), second);
    lanes_sum<Lanes>(second);
    formula::take_probabilities(loss, second, row.terms);
  }
  loss_row<Loss> result = row.values(loss, label);
  result.finite = result.finite && at.weight_is_good();
  if (absent) result = {};
  if (!exists || !at.wants_gradient() || !result.finite) return result;
  const row_gradient<Loss> gradient(loss, row, weights, at.gradient_weight(), label);
#pragma unroll
  for (unsigned i = 0; i < Values; ++i) {
    z[i] = absent ? 0.0f : gradient(place.class_of(i), numbers_of(i));
    if constexpr (Loss::caps) z[i] *= slope[i];
  }
  place.store(z, wide.gradient, at.batch.add_to_gradient, at.gradient());
  return result;
}

/// Threads of a block: 128 where a fold follows in a launch of its own; for one block that folds as well up to 1,024,
/// which leaves 64 registers for a thread, or 512 where it wants more.
template <unsigned Values, bool Fold, class Loss, class Batch>
inline constexpr unsigned register_rows_threads =
    !Fold                                                                                      ? 128
    : Values * floats_of_class<Loss> > 12 || Loss::logit_sums > 0 || is_more_than_dense<Batch> ? 512
                                                                                               : 1024;
/// Blocks that must fit a multiprocessor. Three leave 168 registers for a thread: 3 floats for each of 32 classes fit
/// (nvcc 13.0, sm_90) where the batch is dense and its logits have 16 bits; otherwise they want up to 250 and would
/// spill, as 16 classes of a batch that is not dense may. Without a number here nvcc spills the small kernels.
template <unsigned Values, bool Fold, class Loss, class Batch>
inline constexpr unsigned register_rows_blocks = Fold || Values* floats_of_class<Loss> > 96 ||
                                                         (Values == 32 && sizeof(*Batch{}.gradient.data) > 2) ||
                                                         (Values >= 16 && is_more_than_dense<Batch>)
                                                     ? 1
                                                     : 3;

/// The rows of this block, blockDim.x / Lanes at a time.
/// @param terms [rows], written where Fold is false
/// @param sums where Fold is true, which takes a grid of one block
template <unsigned Lanes, unsigned Values, bool Fold, class Loss, class Batch>
__device__ void loss_of_register_rows(const Batch& batch, const wide_arrays& wide, const Loss* loss_in_memory,
                                      const counted_rows* counted, loss_row<Loss>* terms, formula::loss_sums* sums) {
  const Loss& loss = *loss_in_memory;  // read where it is used: fewer registers than a copy
  const loss_weights<Loss> weights(loss, static_cast<float>(divisor_of(batch, counted)));
  const unsigned lane = threadIdx.x % Lanes, group = threadIdx.x / Lanes, groups = blockDim.x / Lanes;
  const register_row<Lanes, Values> place(lane, static_cast<unsigned>(batch.classes));
  batch_sums<Loss> mine;
  for (std::size_t first = std::size_t{blockIdx.x} * groups; first < batch.rows;
       first += std::size_t{gridDim.x} * groups) {
    const std::size_t row = first + group;
    const bool exists = row < batch.rows;
    const row_of_batch<Batch> at(batch, exists ? row : 0);
    const loss_row<Loss> result = loss_in_registers(place, loss, weights, at, exists, wide);
    if (!exists || lane != 0) continue;
    if (batch.row_values != nullptr) store_values(loss, result, batch.row_values + row * (Loss::values + 1));
    if constexpr (Fold)
      mine.add(result, at.weight(), static_cast<unsigned>(row));
    else
      terms[row] = result;
  }
  if constexpr (Fold) fold_batch(mine, loss_in_memory, batch, counted, sums);
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
