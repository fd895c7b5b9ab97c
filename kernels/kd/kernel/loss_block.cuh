/// A row of any number of classes in two passes of one block, or in three where a term has sums over the probabilities.
/// The kernel is in logit_loss.cuh.
///
/// Pass 1: every thread keeps the largest logits that it has met and sums relative to them; a larger one rescales the
/// sums (Milakov, Gimelshein: Online normalizer calculation for softmax, arXiv:1805.02867). The threads are then put
/// together relative to the row's maxima. The last pass reads the row again and writes the gradient.
/// A class that only one side masks would make moments infinite unless the other side's probability is 0 in float,
/// which a thread cannot know before the row's maximum is: it is left out of the sums and decided on at the end.
#pragma once

#include <algorithm>
#include <type_traits>

#include "kd/kernel/loss_row.cuh"
#include "kd/kernel/loss_sums.cuh"
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

/// Whether a moment looks at the other side than its weight's: infinite where that one alone masks a class.
__host__ __device__ constexpr bool looks_across(formula::moment m) {
  return m.weight == formula::by::student ? m.what != formula::of::student : m.what != formula::of::teacher;
}
/// Whether there is such a moment under this side's weight.
template <class Loss>
constexpr bool hides(formula::by side) {
  for (std::size_t i = 0; i != Loss::moments.size; ++i)
    if (Loss::moments.at[i].weight == side && looks_across(Loss::moments.at[i])) return true;
  return false;
}
template <class Loss>
inline constexpr bool hides_student = hides<Loss>(formula::by::student);
template <class Loss>
inline constexpr bool hides_teacher = hides<Loss>(formula::by::teacher);

/// What is known of some of a row's classes.
template <class Loss, student_exponentials Kind>
struct partial_row {
  row_maxima maxima;
  formula::sums<Loss, float> sums;
  // The largest logit of this side among classes that only the other one masks.
  float hidden_student = -float_infinity, hidden_teacher = -float_infinity;

  /// Makes the sums relative to larger maxima. One step for student and teacher: were they two, equal rows would not
  /// keep a gap of exactly 0.
  __device__ void rescale(float student, float teacher, const softenings& soft) {
    const float dz = maxima.student - student, student_scale = soft.student(dz);
    const float dt = maxima.teacher - teacher;
    const float teacher_scale = takes_teacher_exponentials<Loss> ? soft.teacher(dt) : 1.0f;
    formula::move_moments<Loss>(sums, student_scale, teacher_scale, dz, dt, soft.ratio);
    sums.student *= student_scale;
    if constexpr (Kind != student_exponentials::shared) sums.hard *= hard_of<Kind>(student_scale, dz);
    if constexpr (takes_teacher_exponentials<Loss>) sums.teacher *= teacher_scale;
    maxima.student = student;
    maxima.teacher = teacher;
  }

  /// Adds the N classes from `first` on, which follow all earlier ones.
  template <unsigned N>
  __device__ void add(unsigned first, const float (&student_logits)[N], const float (&teacher_logits)[N],
                      const Loss& loss, const softenings& soft, const row_label& label) {
    float z[N], t[N];
#pragma unroll
    for (unsigned i = 0; i < N; ++i) {
      z[i] = student_seen(loss, student_logits[i]);
      t[i] = teacher_seen(loss, teacher_logits[i]);
      if constexpr (Loss::logit_sums > 0)
        formula::add_logits(loss, class_numbers{.student_logit = z[i], .teacher_logit = t[i]}, sums.logits);
      const bool apart = Loss::label_apart && first + i == label.at;
      if (apart) z[i] = t[i] = -float_infinity;
    }
    float student = maxima.student, teacher = maxima.teacher;
#pragma unroll
    for (unsigned i = 0; i < N; ++i) {
      student = fmaxf(student, z[i]);
      if constexpr (Loss::needs_teacher) teacher = fmaxf(teacher, t[i]);
    }
    if (student > maxima.student || teacher > maxima.teacher) {
      if (student > maxima.student) maxima.student_class = first + first_with(student, z);
      if (teacher > maxima.teacher) maxima.teacher_class = first + first_with(teacher, t);
      rescale(student, teacher, soft);
    }
    if constexpr (Loss::softens || Loss::hardens) add_exponentials(z, t, soft);
  }
  template <unsigned N>
  __device__ void add_exponentials(const float (&z)[N], const float (&t)[N], const softenings& soft) {
#pragma unroll
    for (unsigned i = 0; i < N; ++i) {
      const float dz = z[i] - maxima.student;
      const float dt = takes_teacher_exponentials<Loss> ? t[i] - maxima.teacher : 0.0f;
      // A NaN goes into the sums.
      const bool hide_student = hides_student<Loss> && t[i] == -float_infinity && z[i] == z[i];
      const bool hide_teacher = hides_teacher<Loss> && z[i] == -float_infinity && t[i] == t[i];
      if (hide_student) hidden_student = fmaxf(hidden_student, z[i]);
      if (hide_teacher) hidden_teacher = fmaxf(hidden_teacher, t[i]);
      const bool student_is_0 = hide_student || dz < soft.student.underflow;
      const float student_e = hide_student ? 0.0f : soft.student(dz);
      sums.student = __fadd_rn(sums.student, student_e);
      if constexpr (Kind != student_exponentials::shared) sums.hard += hard_of<Kind>(student_e, dz);
      if constexpr (Loss::softens) {
        bool teacher_is_0 = false;
        float teacher_e = 0;
        if constexpr (takes_teacher_exponentials<Loss>) {
          teacher_is_0 = hide_teacher || dt < soft.teacher.underflow;
          teacher_e = teacher_is_0 ? 0.0f : soft.teacher(dt);
          sums.teacher = __fadd_rn(sums.teacher, teacher_e);
        }
        formula::add_moments<Loss, false>(sums.moments, student_e, teacher_e, dz, dt, soft.gap(dz, dt), student_is_0,
                                          teacher_is_0);
      }
    }
  }

  /// What the hidden classes do to the moments, when the row's maxima are known.
  __device__ void uncover(const softenings& soft) {
    const bool student = hides_student<Loss> && !(hidden_student - maxima.student < soft.student.underflow);
    const bool teacher = hides_teacher<Loss> && !(hidden_teacher - maxima.teacher < soft.teacher.underflow);
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      [[maybe_unused]] const auto look = [&]<std::size_t J>(std::integral_constant<std::size_t, J>) {
        constexpr formula::moment m = Loss::moments.at[J];
        if constexpr (looks_across(m))
          if (m.weight == formula::by::student ? student : teacher) sums.moments.at[J] = float_infinity;
      };
      (look(std::integral_constant<std::size_t, I>{}), ...);
    }
    (std::make_index_sequence<Loss::moments.size>{});
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

/// Adds up numbers over the block, in all its threads; `room` holds Size times the warps. All threads must call.
template <std::size_t Size>
__device__ void block_sums(float (&x)[Size], float (*room)[block_row_threads / warp_size]) {
  constexpr unsigned warps = block_row_threads / warp_size;
  const unsigned lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
#pragma unroll
  for (std::size_t i = 0; i != Size; ++i) {
    const float mine = warp_sum(x[i]);
    if (lane == 0) room[i][warp] = mine;
  }
  __syncthreads();
#pragma unroll
  for (std::size_t i = 0; i != Size; ++i) x[i] = warp_sum(lane < warps ? room[i][lane] : 0.0f);
}

/// Puts the threads of a block together: the same row in all of them afterwards.
template <class Loss, student_exponentials Kind>
__device__ void join_block(partial_row<Loss, Kind>& row, const softenings& soft) {
  constexpr unsigned warps = block_row_threads / warp_size;
  constexpr bool takes_teacher = Loss::needs_teacher;
  __shared__ float largest[4][warps];
  __shared__ unsigned classes[2][warps];
  const unsigned lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  row_maxima maxima = maxima_of_warp<takes_teacher>(row.maxima);
  if constexpr (hides_student<Loss>) row.hidden_student = warp_max(row.hidden_student);
  if constexpr (hides_teacher<Loss>) row.hidden_teacher = warp_max(row.hidden_teacher);
  if (lane == 0) {
    largest[0][warp] = maxima.student;
    largest[1][warp] = maxima.teacher;
    largest[2][warp] = row.hidden_student;
    largest[3][warp] = row.hidden_teacher;
    classes[0][warp] = maxima.student_class;
    classes[1][warp] = maxima.teacher_class;
  }
  __syncthreads();
  const unsigned from = lane % warps;
  maxima = maxima_of_warp<takes_teacher>({largest[0][from], largest[1][from], classes[0][from], classes[1][from]});
  if constexpr (hides_student<Loss>) row.hidden_student = warp_max(largest[2][from]);
  if constexpr (hides_teacher<Loss>) row.hidden_teacher = warp_max(largest[3][from]);
  row.rescale(maxima.student, maxima.teacher, soft);
  row.maxima = maxima;

  constexpr std::size_t exponentials = Loss::softens || Loss::hardens ? 1 : 0;
  constexpr std::size_t hard = exponentials, teacher = hard + (Kind != student_exponentials::shared);
  constexpr std::size_t moments = teacher + takes_teacher_exponentials<Loss>;
  constexpr std::size_t logits = moments + Loss::moments.size, size = logits + Loss::logit_sums;
  __shared__ float room[size][warps];
  float all[size];
  if constexpr (exponentials == 1) all[0] = row.sums.student;
  if constexpr (teacher > hard) all[hard] = row.sums.hard;
  if constexpr (moments > teacher) all[teacher] = row.sums.teacher;
#pragma unroll
  for (std::size_t i = 0; i != Loss::moments.size; ++i) all[moments + i] = row.sums.moments.at[i];
#pragma unroll
  for (std::size_t i = 0; i != Loss::logit_sums; ++i) all[logits + i] = row.sums.logits.at[i];
  block_sums(all, room);
  if constexpr (exponentials == 1) row.sums.hard = row.sums.student = all[0];
  if constexpr (teacher > hard) row.sums.hard = all[hard];
  if constexpr (moments > teacher) row.sums.teacher = all[teacher];
#pragma unroll
  for (std::size_t i = 0; i != Loss::moments.size; ++i) row.sums.moments.at[i] = all[moments + i];
#pragma unroll
  for (std::size_t i = 0; i != Loss::logit_sums; ++i) row.sums.logits.at[i] = all[logits + i];
}

/// How this thread walks over a row: packs of `width` classes, then the rest singly. Who takes a class depends on
/// nothing but its number; arrays whose row lies well are accessed 16 bytes at a time, or less in formats smaller than
/// the others'.
template <class Student, class Teacher, class Gradient>
struct row_walk {
  static constexpr std::size_t largest = std::max({sizeof(Student), sizeof(Teacher), sizeof(Gradient)});
  static constexpr unsigned width = 16 / largest;

  /// Calls step(class) for single classes and step_wide(class) for the first of `width`, in ascending order.
  template <class Single, class Wide>
  __device__ static void over(unsigned classes, const Single& step, const Wide& step_wide) {
    const unsigned packs = classes / width;
    for (unsigned p = threadIdx.x; p < packs; p += block_row_threads) step_wide(p * width);
    for (unsigned c = packs * width + threadIdx.x; c < classes; c += block_row_threads) step(c);
  }
  /// Whether packs of a row can be accessed at once.
  template <class T>
  __device__ static bool is_wide(const T* row) {
    return reinterpret_cast<std::uintptr_t>(row) % (width * sizeof(T)) == 0;
  }
  /// The pack from class c on; minus infinity from class `end` on.
  template <class T>
  __device__ static void load(const T* row, unsigned c, unsigned end, bool wide, float (&x)[width]) {
    if (wide && c + width <= end) return load_floats<width>(row + c, x);
#pragma unroll
    for (unsigned i = 0; i < width; ++i) x[i] = c + i < end ? to_float(row[c + i]) : -float_infinity;
  }
  template <class T>
  __device__ static void store(const float (&x)[width], bool wide, T* to) {
    if (wide) return store_floats<width>(x, to);
#pragma unroll
    for (unsigned i = 0; i < width; ++i) to[i] = from_float<T>(x[i]);
  }
};

/// The spread of both sides in two more passes, where the loss asks for it. `over_row` calls a function for the classes
/// of this thread.
template <class Loss, class Batch, class OverRow>
__device__ row_spread spread_of_block(const Loss& loss, const row_of_batch<Batch>& at, const OverRow& over_row) {
  row_spread spread;
  if constexpr (Loss::standardises) {
    const float first_student = student_seen(loss, at.student_logit(0));
    const float first_teacher = teacher_seen(loss, at.teacher_logit(0));
    spread.student.from = formula::is_masked(first_student) ? 0.0f : first_student;
    spread.teacher.from = formula::is_masked(first_teacher) ? 0.0f : first_teacher;
    __shared__ float room[2][4][block_row_threads / warp_size];
    float first[4] = {}, squares[2] = {};  // sums and counts of both sides
    over_row([&](unsigned, const auto& z, const auto& t) {
#pragma unroll
      for (unsigned i = 0; i < sizeof z / sizeof z[0]; ++i) {
        const float zi = student_seen(loss, z[i]), ti = teacher_seen(loss, t[i]);
        const bool student = formula::is_masked(zi), teacher = formula::is_masked(ti);
        first[0] += student ? 0.0f : zi - spread.student.from;
        first[1] += student ? 0.0f : 1.0f;
        first[2] += teacher ? 0.0f : ti - spread.teacher.from;
        first[3] += teacher ? 0.0f : 1.0f;
      }
    });
    block_sums(first, room[0]);
    spread.student.mean = first[0] / first[1];
    spread.student.count = first[1];
    spread.teacher.mean = first[2] / first[3];
    spread.teacher.count = first[3];
    over_row([&](unsigned, const auto& z, const auto& t) {
#pragma unroll
      for (unsigned i = 0; i < sizeof z / sizeof z[0]; ++i) {
        const float zi = student_seen(loss, z[i]), ti = teacher_seen(loss, t[i]);
        const float student = zi - spread.student.from - spread.student.mean;
        const float teacher = ti - spread.teacher.from - spread.teacher.mean;
        squares[0] += formula::is_masked(zi) ? 0.0f : student * student;
        squares[1] += formula::is_masked(ti) ? 0.0f : teacher * teacher;
      }
    });
    block_sums(squares, room[1]);
    spread.student.deviation = deviation_of(squares[0], spread.student.count);
    spread.teacher.deviation = deviation_of(squares[1], spread.teacher.count);
  }
  return spread;
}

/// Rows whose classes are all here. split_vocabulary.cuh has what exchanges sums with others between the passes.
struct whole_rows {
  static constexpr bool reads = true, sums_probabilities = true, ends = true;
  template <class Row, class Partial>
  __device__ bool sums(const Row&, Partial&, row_label&) const {
    return true;
  }
  template <class Sums>
  __device__ bool probabilities(Sums&) const {
    return true;
  }
  __device__ void ignored() const {}
};

/// One row. Leaves its terms in every thread.
template <student_exponentials Kind, class Loss, class Batch, class Exchange>
__device__ loss_row<Loss> loss_of_block_row(const row_of_batch<Batch>& at, const Loss& loss,
                                            const loss_weights<Loss>& weights, bool adds, const Exchange& exchange) {
  constexpr bool takes_teacher = Loss::needs_teacher;
  using Student = std::remove_cvref_t<decltype(*at.student())>;
  using Teacher = std::conditional_t<takes_teacher, std::remove_cvref_t<decltype(*at.teacher())>, Student>;
  using Gradient = std::remove_cvref_t<decltype(*at.gradient())>;
  using walk = row_walk<Student, Teacher, Gradient>;
  constexpr unsigned width = walk::width;
  const Student* const student = at.student();
  const auto* const teacher = at.teacher();
  const unsigned classes = at.classes(), teacher_classes = at.teacher_classes();
  const bool wide_student = walk::is_wide(student), wide_teacher = walk::is_wide(teacher);
  // In front of the barriers: the gradient may overwrite the logits only behind them.
  const row_label label = label_seen(loss, at);
  // Calls step(first class, logits of the student, logits of the teacher) for the classes of this thread.
  const auto over_row = [&](const auto& step) {
    walk::over(
        classes,
        [&](unsigned c) {
          const float z[1] = {to_float(student[c])}, t[1] = {takes_teacher ? at.teacher_logit(c) : 0.0f};
          step(c, z, t);
        },
        [&](unsigned c) {
          float z[width], t[width] = {};
          walk::load(student, c, classes, wide_student, z);
          if constexpr (takes_teacher) walk::load(teacher, c, teacher_classes, wide_teacher, t);
          step(c, z, t);
        });
  };

  const row_spread spread = spread_of_block(loss, at, over_row);
  const softenings soft(loss, spread);
  partial_row<Loss, Kind> part;
  if constexpr (Exchange::reads) {
    over_row([&](unsigned c, const auto& z, const auto& t) { part.add(c, z, t, loss, soft, label); });
    join_block(part, soft);
  }
  row_label whole_label = label;
  if (!exchange.sums(at, part, whole_label)) return {};
  part.uncover(soft);
  whole_row<Loss> row(loss, soft, part.maxima, part.sums, whole_label, spread, at.all_classes());

  const auto numbers_of = [&](unsigned c, float student_logit, float teacher_logit) {
    const float z = student_seen(loss, student_logit), t = teacher_seen(loss, teacher_logit);
    const bool apart = Loss::label_apart && c == label.at;
    const float dz = (apart ? -float_infinity : z) - part.maxima.student;
    const float dt = (apart ? -float_infinity : t) - part.maxima.teacher;
    class_numbers numbers;
    if constexpr (Loss::softens || Loss::hardens) numbers.student_e = soft.student(dz);
    if constexpr (takes_teacher_exponentials<Loss>) numbers.teacher_e = soft.teacher(dt);
    if constexpr (Loss::hardens) numbers.hard_e = hard_of<Kind>(numbers.student_e, dz);
    if constexpr (takes_gap<Loss>) numbers.gap = soft.gap(dz, dt);
    numbers.student_logit = z;
    numbers.teacher_logit = t;
    return numbers;
  };
  if constexpr (Loss::probability_sums > 0) {
    __shared__ float room[Loss::probability_sums][block_row_threads / warp_size];
    formula::few<float, Loss::probability_sums> second = {};
    if constexpr (Exchange::sums_probabilities) {
      over_row([&](unsigned c, const auto& z, const auto& t) {
#pragma unroll
        for (unsigned i = 0; i < sizeof z / sizeof z[0]; ++i)
          formula::add_probabilities(loss, row.terms, row.see(numbers_of(c + i, z[i], t[i])), second);
      });
      block_sums(second.at, room);
    }
    if (!exchange.probabilities(second)) return {};
    formula::take_probabilities(loss, second, row.terms);
  }
  loss_row<Loss> result = row.values(loss, whole_label);
  result.finite = result.finite && at.weight_is_good();
  if (!at.wants_gradient() || !result.finite) return result;

  const row_gradient<Loss> gradient(loss, row, weights, at.gradient_weight(), label);
  Gradient* const d_student = at.gradient();
  const bool wide_gradient = walk::is_wide(d_student);
  over_row([&](unsigned c, const auto& z, const auto& t) {
    constexpr unsigned size = sizeof z / sizeof z[0];
    float d[size];
#pragma unroll
    for (unsigned i = 0; i < size; ++i) {
      d[i] = gradient(c + i, numbers_of(c + i, z[i], t[i]));
      if constexpr (Loss::caps) d[i] *= formula::student_slope<float_math>(loss, z[i]);
    }
    if constexpr (size == 1) {
      d_student[c] = from_float<Gradient>(adds ? to_float(d_student[c]) + d[0] : d[0]);
    } else {
      if (adds) {
        float before[size];
        walk::load(d_student, c, classes, wide_gradient, before);
#pragma unroll
        for (unsigned i = 0; i < size; ++i) d[i] = before[i] + d[i];
      }
      walk::store(d, wide_gradient, d_student + c);
    }
  });
  return result;
}

/// Row blockIdx.x of a batch, with block_row_threads threads; its terms go to terms[blockIdx.x].
template <class Loss, class Batch, class Exchange = whole_rows>
__device__ void loss_of_block_rows(const Batch& batch, const Loss* loss_in_memory, const counted_rows* counted,
                                   loss_row<Loss>* terms, const Exchange& exchange = Exchange{}) {
  const Loss& loss = *loss_in_memory;  // read where it is used: fewer registers than a copy
  const row_of_batch<Batch> at(batch, blockIdx.x);
  loss_row<Loss> result;
  if (at.ignored) {
    exchange.ignored();
    if (at.wants_gradient() && !batch.add_to_gradient)
      for (unsigned c = threadIdx.x; c < at.classes(); c += block_row_threads) at.gradient()[c] = {};
  } else {
    const loss_weights<Loss> weights(loss, static_cast<float>(divisor_of(batch, counted)));
    const auto run = [&]<student_exponentials Kind>() {
      result = loss_of_block_row<Kind>(at, loss, weights, batch.add_to_gradient, exchange);
    };
    using enum student_exponentials;
    if constexpr (!takes_hard_exponentials<Loss>) {
      run.template operator()<shared>();
    } else if constexpr (Loss::standardises) {
      run.template operator()<separate>();
    } else {
      if (loss.temperature == 2.0f)
        run.template operator()<squared>();
      else if (loss.temperature != 1.0f)
        run.template operator()<separate>();
      else
        run.template operator()<shared>();
    }
  }
  if (!Exchange::ends || threadIdx.x != 0) return;
  terms[blockIdx.x] = result;
  if (batch.row_values != nullptr) store_values(loss, result, batch.row_values + blockIdx.x * (Loss::values + 1));
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
