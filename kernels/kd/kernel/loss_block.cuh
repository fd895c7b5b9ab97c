/// A row of any number of classes in two passes of one block. The kernels are in distillation.cuh and
/// cross_entropy.cuh.
///
/// Pass 1: every thread keeps the largest logits that it has met and sums relative to them; a larger one rescales the
/// sums (Milakov, Gimelshein: Online normalizer calculation for softmax, arXiv:1805.02867). The threads are then put
/// together relative to the row's maxima. Pass 2 reads the row again and writes the gradient.
/// A class that only the student masks would make the KL infinite unless the teacher's probability is 0 in float, which
/// a thread cannot know before the row's maximum is: it is left out of the sums and decided on at the end.
#pragma once

#include "kd/kernel/loss_row.cuh"
#include "kd/kernel/pack.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// Not yet measured against 256 and 1,024.
inline constexpr unsigned block_row_threads = 512;

/// Which exponentials a row takes beside exp(t/T): at T = 1 softmax(z) and softmax(z/T) are one, at T = 2 exp(z) is the
/// square of exp(z/2), otherwise both are computed.
enum class student_exponentials { shared, squared, separate };

template <student_exponentials Kind>
__device__ float hard_of(float student_e, float dz) {
  if constexpr (Kind == student_exponentials::shared) {
    return student_e;
  } else if constexpr (Kind == student_exponentials::squared) {
    return student_e * student_e;
  } else {
    static_assert(Kind == student_exponentials::separate, "kd::kernel: hard_of must know every student_exponentials");
    return hard_exponential(dz);
  }
}

/// What is known of some of a row's classes.
template <bool Teacher, student_exponentials Kind>
struct partial_row {
  row_maxima maxima;
  row_sums sums;
  float hidden = -float_infinity;  // the teacher's largest logit among classes that only the student masks

  /// Makes the sums relative to larger maxima. One step for student and teacher: were they two, equal rows would not
  /// keep a gap of exactly 0.
  __device__ void rescale(float student, float teacher, const softening& soft) {
    const float dz = maxima.student - student, student_scale = soft(dz);
    sums.student *= student_scale;
    if constexpr (Kind != student_exponentials::shared) sums.hard *= hard_of<Kind>(student_scale, dz);
    if constexpr (Teacher) {
      const float dt = maxima.teacher - teacher, teacher_scale = soft(dt);
      // What follows may be infinite where nothing remains, or nothing was there, and 0 * infinity counts as 0.
      if (teacher_scale == 0) {
        sums.gap = sums.energy = 0;
      } else if (sums.teacher > 0) {
        sums.gap = teacher_scale * (sums.gap + sums.teacher * (dt - dz));
        sums.energy = teacher_scale * (sums.energy + sums.teacher * dt);
      }
      sums.teacher *= teacher_scale;
    }
    maxima.student = student;
    maxima.teacher = teacher;
  }

  /// Adds the N classes from `first` on, which follow all earlier ones.
  template <unsigned N>
  __device__ void add(unsigned first, const float (&z)[N], const float (&t)[N], const softening& soft) {
    float student = maxima.student, teacher = maxima.teacher;
#pragma unroll
    for (unsigned i = 0; i < N; ++i) {
      student = fmaxf(student, z[i]);
      if constexpr (Teacher) teacher = fmaxf(teacher, t[i]);
    }
    if (student > maxima.student || teacher > maxima.teacher) {
      if (student > maxima.student) maxima.student_class = first + first_with(student, z);
      if (teacher > maxima.teacher) maxima.teacher_class = first + first_with(teacher, t);
      rescale(student, teacher, soft);
    }
#pragma unroll
    for (unsigned i = 0; i < N; ++i) {
      const float dz = z[i] - maxima.student, student_e = soft(dz);
      sums.student = __fadd_rn(sums.student, student_e);
      if constexpr (Kind != student_exponentials::shared) sums.hard += hard_of<Kind>(student_e, dz);
      if constexpr (Teacher) {
        const float dt = t[i] - maxima.teacher;
        const bool masked_here = z[i] == -float_infinity && t[i] == t[i];  // a NaN of the teacher goes into the sums
        if (masked_here) hidden = fmaxf(hidden, t[i]);
        const bool zero = masked_here || dt < soft.underflow;
        const float teacher_e = zero ? 0.0f : soft(dt);
        sums.teacher = __fadd_rn(sums.teacher, teacher_e);
        sums.gap += teacher_e * (zero ? 0.0f : dt - dz);
        sums.energy += teacher_e * (zero ? 0.0f : dt);
      }
    }
  }

  template <unsigned N>
  __device__ static unsigned first_with(float logit, const float (&x)[N]) {
    unsigned found = 0;
#pragma unroll
    for (unsigned i = N; i-- > 0;)
      if (x[i] == logit) found = i;
    return found;
  }
};

/// The larger of two maxima with its class, the smaller class of equals.
__device__ inline void take_larger(float& largest, unsigned& at, float other, unsigned other_at) {
  if (other > largest || (other == largest && other_at < at)) {
    largest = other;
    at = other_at;
  }
}
template <bool Teacher>
__device__ row_maxima maxima_of_warp(row_maxima m) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const float student = __shfl_xor_sync(full_warp, m.student, offset);
    take_larger(m.student, m.student_class, student, __shfl_xor_sync(full_warp, m.student_class, offset));
    if constexpr (Teacher) {
      const float teacher = __shfl_xor_sync(full_warp, m.teacher, offset);
      take_larger(m.teacher, m.teacher_class, teacher, __shfl_xor_sync(full_warp, m.teacher_class, offset));
    }
  }
  return m;
}

/// Puts the threads of a block together: the same row in all of them afterwards.
template <bool Teacher, student_exponentials Kind>
__device__ void join_block(partial_row<Teacher, Kind>& row, const softening& soft) {
  constexpr unsigned warps = block_row_threads / warp_size;
  __shared__ float largest[3][warps];
  __shared__ unsigned classes[2][warps];
  __shared__ float sums[5][warps];
  const unsigned lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  row_maxima maxima = maxima_of_warp<Teacher>(row.maxima);
  float hidden = Teacher ? warp_max(row.hidden) : 0.0f;
  if (lane == 0) {
    largest[0][warp] = maxima.student;
    largest[1][warp] = maxima.teacher;
    largest[2][warp] = hidden;
    classes[0][warp] = maxima.student_class;
    classes[1][warp] = maxima.teacher_class;
  }
  __syncthreads();
  const unsigned from = lane % warps;
  maxima = maxima_of_warp<Teacher>({largest[0][from], largest[1][from], classes[0][from], classes[1][from]});
  if constexpr (Teacher) hidden = warp_max(largest[2][from]);

  row.rescale(maxima.student, maxima.teacher, soft);
  row.maxima = maxima;
  const row_sums mine = {warp_sum(row.sums.student), warp_sum(row.sums.hard), warp_sum(row.sums.teacher),
                         warp_sum(row.sums.gap), warp_sum(row.sums.energy)};
  if (lane == 0) {
    sums[0][warp] = mine.student;
    sums[1][warp] = mine.hard;
    sums[2][warp] = mine.teacher;
    sums[3][warp] = mine.gap;
    sums[4][warp] = mine.energy;
  }
  __syncthreads();
  const auto all = [&](unsigned which) { return warp_sum(lane < warps ? sums[which][lane] : 0.0f); };
  row.sums.student = all(0);
  row.sums.hard = Kind == student_exponentials::shared ? row.sums.student : all(1);
  if constexpr (Teacher) {
    row.sums.teacher = all(2);
    row.sums.gap = hidden - maxima.teacher < soft.underflow ? all(3) : float_infinity;
    row.sums.energy = all(4);
  }
}

/// How this thread walks over a row: single classes in front of the first 16-byte boundary and behind the last,
/// accesses of 16 bytes between. Arrays that lie differently to the boundary are walked singly.
template <class Logit>
struct row_walk {
  static constexpr unsigned width = pack_width<Logit>;
  unsigned classes, head, packs;

  __device__ row_walk(unsigned classes_, const Logit* a, const Logit* b, const Logit* c)
      : classes(classes_), head(classes_), packs(0) {
    const unsigned past = past_boundary(a);
    if (past_boundary(b) != past || past_boundary(c) != past) return;
    const unsigned to_boundary = (width - past) % width;
    if (to_boundary >= classes) return;
    head = to_boundary;
    packs = (classes - head) / width;
  }
  /// Calls step(class) for single classes and step_wide(class) for the first of `width`, in ascending order.
  template <class Single, class Wide>
  __device__ void operator()(const Single& step, const Wide& step_wide) const {
    for (unsigned c = threadIdx.x; c < head; c += block_row_threads) step(c);
    for (unsigned p = threadIdx.x; p < packs; p += block_row_threads) step_wide(head + p * width);
    for (unsigned c = head + packs * width + threadIdx.x; c < classes; c += block_row_threads) step(c);
  }

 private:
  __device__ static unsigned past_boundary(const Logit* at) {
    return static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(at) / sizeof(Logit) % width);
  }
};

template <bool Teacher, student_exponentials Kind, class Logit>
__device__ void loss_of_block_row(unsigned classes, const Logit* student, const Logit* teacher, std::int32_t label,
                                  const loss_weights& weights, Logit* d_student, loss_row* terms) {
  const Logit* const t_row = Teacher ? teacher : student;
  const row_walk<Logit> walk(classes, student, t_row, d_student == nullptr ? student : d_student);
  constexpr unsigned width = row_walk<Logit>::width;
  const softening soft(weights.temperature);
  // In front of the barriers: the gradient may overwrite the logits only behind them.
  const float label_logit = logit_of_label(student, classes, label);

  partial_row<Teacher, Kind> row;
  walk(
      [&](unsigned c) {
        const float z[1] = {to_float(student[c])}, t[1] = {to_float(t_row[c])};
        row.add(c, z, t, soft);
      },
      [&](unsigned c) {
        float z[width], t[width];
        load_floats<width>(student + c, z);
        if constexpr (Teacher) load_floats<width>(teacher + c, t);
        row.add(c, z, t, soft);
      });
  join_block(row, soft);
  const loss_row result = terms_of_row<Teacher>(row.maxima, row.sums, soft, label, label_logit);
  if (threadIdx.x == 0) *terms = result;
  if (d_student == nullptr || !is_finite(result)) return;

  const gradient_factors factors(weights, row.sums);
  const auto gradient = [&](float z, float t, bool is_label) {
    const float dz = z - row.maxima.student, student_e = soft(dz);
    const float teacher_e = Teacher ? soft(t - row.maxima.teacher) : 0.0f;
    return factors.operator()<Teacher>(student_e, hard_of<Kind>(student_e, dz), teacher_e, is_label);
  };
  walk(
      [&](unsigned c) {
        const float d =
            gradient(to_float(student[c]), Teacher ? to_float(t_row[c]) : 0.0f, c == static_cast<unsigned>(label));
        d_student[c] = from_float<Logit>(d);
      },
      [&](unsigned c) {
        float z[width], t[width];
        load_floats<width>(student + c, z);
        if constexpr (Teacher) load_floats<width>(teacher + c, t);
#pragma unroll
        for (unsigned i = 0; i < width; ++i)
          z[i] = gradient(z[i], Teacher ? t[i] : 0.0f, c + i == static_cast<unsigned>(label));
        store_floats<width>(z, d_student + c);
      });
}

/// Row blockIdx.x of a batch, with block_row_threads threads; its terms go to terms[blockIdx.x].
template <bool Teacher, class Logit>
__device__ void loss_of_block_rows(std::size_t rows, std::size_t classes, const Logit* student, const Logit* teacher,
                                   const std::int32_t* labels, const float* options, Logit* d_student,
                                   loss_row* terms) {
  const std::size_t row = blockIdx.x, at = row * classes;
  const loss_weights weights = loss_weights::of<Teacher>(options, rows);
  const auto run = [&]<student_exponentials Kind>() {
    loss_of_block_row<Teacher, Kind>(static_cast<unsigned>(classes), student + at, Teacher ? teacher + at : nullptr,
                                     labels[row], weights, d_student == nullptr ? nullptr : d_student + at,
                                     terms + row);
  };
  using enum student_exponentials;
  if constexpr (Teacher) {
    if (weights.temperature == 2.0f) return run.template operator()<squared>();
    if (weights.temperature != 1.0f) return run.template operator()<separate>();
  }
  run.template operator()<shared>();
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
