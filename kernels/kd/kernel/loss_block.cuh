/// A row of any number of classes in two passes of one block, or in three where a term has sums over the probabilities.
/// The kernel is in logit_loss.cuh.
///
/// Pass 1: every thread keeps the largest logits that it has met, and sums relative to logits that are at most 16 bits
/// of an exponential below them; a larger one rescales the sums (Milakov, Gimelshein: Online normalizer calculation for
/// softmax, arXiv:1805.02867). Classes are added in groups of 8 without a look at masks: where that gives something
/// that is not finite, the group is added once more, class by class. The threads are then put together relative to the
/// row's maxima. The last pass reads the row again, backwards, and writes the gradient. A class that only one side
/// masks would make moments infinite unless the other side's probability is 0 in float, which a thread cannot know
/// before the row's maximum is: it is left out of the sums and decided on at the end.
///
/// Measured on an H100 (ncu), KD + CE at T = 4: 41 instructions a class for both passes in float, 49 in bfloat16; of
/// 128,256 classes a row is read twice from memory, which is then busy at 79 %.
#pragma once

#include <algorithm>
#include <type_traits>

#include "kd/kernel/loss_row.cuh"
#include "kd/kernel/loss_sums.cuh"
#include "kd/kernel/pack.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {

/// Threads of a row: few where a row has few classes, so that many rows share a multiprocessor and one's barriers do
/// not stop the others. A result depends on their number, which goes by the classes of the whole row alone. Measured on
/// an H100, KD + CE, microseconds, 128 threads and 512: 4,096 x 2,048 float 55 and 145, bfloat16 47 and 170; 2,048 x
/// 4,096: 52 and 92, 39 and 99; 2,048 x 8,192: 111 and 125, 66 and 128.
inline constexpr unsigned few_row_threads = 128, many_row_threads = 512;
inline constexpr unsigned few_threads_classes = 8192;

/// Which exponentials a row takes beside exp(t/T): exp(z/T) or exp(z) alone where a loss has no terms of both sides; in
/// long rows exp(z) as the square of exp(z/2) at T = 2; otherwise both. Each kind is a kernel's code once more.
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

enum class side { student, teacher };

/// What is known of some of a row's classes.
template <class Loss, student_exponentials Kind>
struct partial_row {
  row_maxima maxima;  // what the sums are relative to
  formula::sums<Loss, float> sums;
  // The largest logit of this side among classes that only the other one masks.
  float hidden_student = -float_infinity, hidden_teacher = -float_infinity;

  /// Makes the sums relative to other maxima. One step for student and teacher: were they two, equal rows would not
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
  /// Adds the exponentials of classes among which none is masked, and returns true; otherwise the sums are not finite,
  /// nothing is added, and the answer is false.
  template <unsigned N>
  __device__ bool add(const float (&z)[N], const float (&t)[N], const softenings& soft) {
    formula::sums<Loss, float> more;
#pragma unroll
    for (unsigned i = 0; i < N; ++i) {
      const float dz = z[i] - maxima.student, student_e = soft.student(dz);
      more.student = __fadd_rn(more.student, student_e);
      if constexpr (Kind != student_exponentials::shared) more.hard += hard_of<Kind>(student_e, dz);
      if constexpr (Loss::softens) {
        float dt = 0, teacher_e = 0;
        if constexpr (takes_teacher_exponentials<Loss>) {
          dt = t[i] - maxima.teacher;
          teacher_e = soft.teacher(dt);
          more.teacher = __fadd_rn(more.teacher, teacher_e);
        }
        formula::add_moments<Loss>(more.moments, student_e, teacher_e, dz, dt, soft.gap(dz, dt), false, false);
      }
    }
    float any = more.student + (takes_teacher_exponentials<Loss> ? more.teacher : 0.0f);
#pragma unroll
    for (std::size_t i = 0; i != Loss::moments.size; ++i) any += more.moments.at[i];
    if (!(any - any == 0)) return false;
    add(more);
    return true;
  }
  /// Adds a class that may be masked, or NaN, which goes into the sums.
  __device__ void add_masked(float z, float t, const softenings& soft) {
    const float dz = z - maxima.student, dt = takes_teacher_exponentials<Loss> ? t - maxima.teacher : 0.0f;
    const bool hide_student = hides_student<Loss> && t == -float_infinity && z == z;
    const bool hide_teacher = hides_teacher<Loss> && z == -float_infinity && t == t;
    if (hide_student) hidden_student = fmaxf(hidden_student, z);
    if (hide_teacher) hidden_teacher = fmaxf(hidden_teacher, t);
    formula::sums<Loss, float> more;
    more.student = hide_student ? 0.0f : soft.student(dz);
    if constexpr (Kind != student_exponentials::shared) more.hard = hard_of<Kind>(more.student, dz);
    if constexpr (Loss::softens) {
      if constexpr (takes_teacher_exponentials<Loss>) more.teacher = hide_teacher ? 0.0f : soft.teacher(dt);
      formula::add_moments<Loss, false>(more.moments, more.student, more.teacher, dz, dt, soft.gap(dz, dt),
                                        more.student == 0, more.teacher == 0);
    }
    add(more);
  }

  /// What the hidden classes do to the moments, when the row's maxima are known.
  __device__ void uncover(const softenings& soft) {
    const bool student = hides_student<Loss> && soft.student(hidden_student - maxima.student) != 0;
    const bool teacher = hides_teacher<Loss> && soft.teacher(hidden_teacher - maxima.teacher) != 0;
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

 private:
  __device__ void add(const formula::sums<Loss, float>& more) {
    sums.student += more.student;
    if constexpr (Kind != student_exponentials::shared) sums.hard += more.hard;
    if constexpr (takes_teacher_exponentials<Loss>) sums.teacher += more.teacher;
#pragma unroll
    for (std::size_t i = 0; i != Loss::moments.size; ++i) sums.moments.at[i] += more.moments.at[i];
  }
};

/// The first pass of a thread over its classes.
template <class Loss, student_exponentials Kind>
struct row_reader {
  const Loss& loss;
  const softenings& soft;
  const row_label& label;
  // Logits by which a class may exceed what the sums are relative to, so that few threads ever rescale.
  float slack;
  partial_row<Loss, Kind> part;
  // The largest logits, and where the group of classes begins that brought them.
  float student = lowest_float, teacher = lowest_float;
  unsigned student_group = no_class, teacher_group = no_class;

  __device__ row_reader(const Loss& loss_, const softenings& soft_, const row_label& label_)
      : loss(loss_), soft(soft_), label(label_), slack(16 * fminf(slack_of(soft.student), slack_of(soft.teacher))) {}

  /// A group of classes, in ascending order; `class_of` gives the number of each.
  template <unsigned N, class ClassOf>
  __device__ void add(const ClassOf& class_of, const float (&student_logits)[N], const float (&teacher_logits)[N]) {
    float z[N], t[N];
#pragma unroll
    for (unsigned i = 0; i < N; ++i) {
      z[i] = student_seen(loss, student_logits[i]);
      t[i] = teacher_seen(loss, teacher_logits[i]);
      if constexpr (Loss::logit_sums > 0)
        formula::add_logits(loss, class_numbers{.student_logit = z[i], .teacher_logit = t[i]}, part.sums.logits);
      if constexpr (Loss::label_apart)
        if (class_of(i) == label.at) z[i] = t[i] = -float_infinity;
    }
    float student_here = z[0], teacher_here = t[0];
#pragma unroll
    for (unsigned i = 1; i < N; ++i) {
      student_here = fmaxf(student_here, z[i]);
      if constexpr (Loss::needs_teacher) teacher_here = fmaxf(teacher_here, t[i]);
    }
    if (student_here > student) {
      student = student_here;
      student_group = class_of(0);
    }
    if (Loss::needs_teacher && teacher_here > teacher) {
      teacher = teacher_here;
      teacher_group = class_of(0);
    }
    if constexpr (Loss::softens || Loss::hardens) {
      if (student - slack > part.maxima.student || (Loss::needs_teacher && teacher - slack > part.maxima.teacher))
        part.rescale(student, teacher, soft);
      if constexpr (N > 1)
        if (part.add(z, t, soft)) return;
#pragma unroll 1
      for (unsigned i = 0; i < N; ++i) part.add_masked(one_of(z, i), one_of(t, i), soft);
    }
  }

 private:
  __device__ static float slack_of(const softening& s) { return 1 / fmaxf(s.log2e_over_t, log2_of_e); }
  /// x[i], of an array that stays in registers.
  template <unsigned N>
  __device__ static float one_of(const float (&x)[N], unsigned i) {
    float found = x[0];
#pragma unroll
    for (unsigned k = 1; k < N; ++k) found = k == i ? x[k] : found;
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
/// Adds up numbers over the block, in all its threads; `scratch` holds Size times the warps. All threads must call.
template <std::size_t Size, std::size_t Warps>
__device__ void block_sums(float (&x)[Size], float (*scratch)[Warps]) {
  const unsigned lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
#pragma unroll
  for (std::size_t i = 0; i != Size; ++i) {
    const float mine = warp_sum(x[i]);
    if (lane == 0) scratch[i][warp] = mine;
  }
  __syncthreads();
#pragma unroll
  for (std::size_t i = 0; i != Size; ++i) x[i] = warp_sum(lane < Warps ? scratch[i][lane] : 0.0f);
}

/// Puts the threads of a block together: the same row in all of them afterwards. `find(side, first)` gives the class
/// with the largest logit of that side in the group that begins at class `first`.
template <unsigned Threads, class Loss, student_exponentials Kind, class Find>
__device__ void join_block(const row_reader<Loss, Kind>& mine, partial_row<Loss, Kind>& row, const softenings& soft,
                           const Find& find) {
  constexpr unsigned warps = Threads / warp_size;
  constexpr bool takes_teacher = Loss::needs_teacher;
  __shared__ float largest[4][warps];
  __shared__ unsigned classes[2];
  const unsigned lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  row = mine.part;
  row_maxima maxima;
  maxima.student = warp_max(mine.student);
  if constexpr (takes_teacher) maxima.teacher = warp_max(mine.teacher);
  if constexpr (hides_student<Loss>) row.hidden_student = warp_max(row.hidden_student);
  if constexpr (hides_teacher<Loss>) row.hidden_teacher = warp_max(row.hidden_teacher);
  if (lane == 0) {
    largest[0][warp] = maxima.student;
    largest[1][warp] = maxima.teacher;
    largest[2][warp] = row.hidden_student;
    largest[3][warp] = row.hidden_teacher;
  }
  if (threadIdx.x < 2) classes[threadIdx.x] = no_class;
  __syncthreads();
  const unsigned from = lane % warps;
  maxima.student = warp_max(largest[0][from]);
  if constexpr (takes_teacher) maxima.teacher = warp_max(largest[1][from]);
  if constexpr (hides_student<Loss>) row.hidden_student = warp_max(largest[2][from]);
  if constexpr (hides_teacher<Loss>) row.hidden_teacher = warp_max(largest[3][from]);
  // Whoever has met the largest logit looks for its class, of which the others are told with the sums.
  if (mine.student_group != no_class && mine.student == maxima.student)
    atomicMin(&classes[0], find(side::student, mine.student_group));
  if (takes_teacher && mine.teacher_group != no_class && mine.teacher == maxima.teacher)
    atomicMin(&classes[1], find(side::teacher, mine.teacher_group));
  row.rescale(maxima.student, maxima.teacher, soft);

  constexpr std::size_t exponentials = Loss::softens || Loss::hardens ? 1 : 0;
  constexpr std::size_t hard = exponentials, teacher = hard + (Kind != student_exponentials::shared);
  constexpr std::size_t moments = teacher + takes_teacher_exponentials<Loss>;
  constexpr std::size_t logits = moments + Loss::moments.size, size = logits + Loss::logit_sums;
  __shared__ float scratch[size][warps];
  float all[size];
  if constexpr (exponentials == 1) all[0] = row.sums.student;
  if constexpr (teacher > hard) all[hard] = row.sums.hard;
  if constexpr (moments > teacher) all[teacher] = row.sums.teacher;
#pragma unroll
  for (std::size_t i = 0; i != Loss::moments.size; ++i) all[moments + i] = row.sums.moments.at[i];
#pragma unroll
  for (std::size_t i = 0; i != Loss::logit_sums; ++i) all[logits + i] = row.sums.logits.at[i];
  block_sums(all, scratch);
  row.maxima.student_class = classes[0];
  row.maxima.teacher_class = classes[1];
  if constexpr (exponentials == 1) row.sums.hard = row.sums.student = all[0];
  if constexpr (teacher > hard) row.sums.hard = all[hard];
  if constexpr (moments > teacher) row.sums.teacher = all[teacher];
#pragma unroll
  for (std::size_t i = 0; i != Loss::moments.size; ++i) row.sums.moments.at[i] = all[moments + i];
#pragma unroll
  for (std::size_t i = 0; i != Loss::logit_sums; ++i) row.sums.logits.at[i] = all[logits + i];
}

/// How this thread walks over a row: groups of packs of `width` classes, then single packs, then the rest singly. Who
/// takes a class depends on nothing but its number; arrays whose row lies well are accessed 16 bytes at a time, or less
/// in formats smaller than the others'.
template <unsigned Threads, class Student, class Teacher, class Gradient>
struct row_walk {
  static constexpr std::size_t largest = std::max({sizeof(Student), sizeof(Teacher), sizeof(Gradient)});
  static constexpr unsigned width = 16 / largest;
  /// Packs of a group, so that it has 8 classes.
  static constexpr unsigned packs = 8 / width;
  /// From a thread's pack to its next.
  static constexpr unsigned stride = Threads * width;

  /// The classes of a group that begins at class `first`.
  struct group {
    unsigned first;
    __device__ unsigned operator()(unsigned i) const { return first + i / width * stride + i % width; }
  };

  static_assert(Threads % warp_size == 0 && Threads <= warp_size * warp_size);

  /// Calls step(class) for single classes and wide.operator()<Packs>(first class) for groups: in ascending order, or
  /// backwards, for a pass that begins with what the caches still have of the one before.
  template <bool Backwards = false, class Single, class Wide>
  __device__ static void over(unsigned classes, const Single& step, const Wide& wide) {
    const unsigned all = classes / width, mine = all > threadIdx.x ? (all - threadIdx.x - 1) / Threads + 1 : 0;
    const unsigned end = threadIdx.x * width + mine / packs * packs * stride;
    const auto rest = [&] {
      if constexpr (packs > 1)
#pragma unroll 1
        for (unsigned i = 0; i < mine % packs; ++i) wide.template operator()<1>(end + i * stride);
#pragma unroll 1
      for (unsigned c = all * width + threadIdx.x; c < classes; c += Threads) step(c);
    };
    if constexpr (Backwards) {
      rest();
#pragma unroll 1
      for (unsigned c = end, left = mine / packs; left > 0; --left)
        wide.template operator()<packs>(c -= packs * stride);
    } else {
#pragma unroll 1
      for (unsigned c = threadIdx.x * width; c < end; c += packs * stride) wide.template operator()<packs>(c);
      rest();
    }
  }
  /// Whether packs of a row can be accessed at once.
  template <class T>
  __device__ static bool is_wide(const T* row) {
    return reinterpret_cast<std::uintptr_t>(row) % (width * sizeof(T)) == 0;
  }
  /// Whether class `at` is one of N in a group that begins at class c.
  template <unsigned N>
  __device__ static bool has(unsigned c, unsigned at) {
    return (at - c) % stride < width && (at - c) / stride < (N + width - 1) / width && (N > 1 || at == c);
  }
  /// The packs from class c on.
  template <unsigned N, class T>
  __device__ static void load_wide(const T* row, unsigned c, float (&x)[N]) {
#pragma unroll
    for (unsigned i = 0; i < N; i += width) load_floats<width>(row + c + i / width * stride, x + i);
  }
  /// The same at any address, and minus infinity from class `end` on.
  template <unsigned N, class T>
  __device__ static void load(const T* row, unsigned c, unsigned end, float (&x)[N]) {
#pragma unroll
    for (unsigned i = 0; i < N; ++i) {
      const unsigned at = group{c}(i);
      x[i] = at < end ? to_float(row[at]) : -float_infinity;
    }
  }
  template <unsigned N, class T>
  __device__ static void store(const float (&x)[N], unsigned c, bool wide, T* row) {
#pragma unroll
    for (unsigned i = 0; i < N; i += width) {
      T* const to = row + c + i / width * stride;
      if (wide) {
        store_floats<width, true>(x + i, to);  // so that what is kept are the logits, which other rows read again
      } else {
#pragma unroll
        for (unsigned k = 0; k < width; ++k) to[k] = from_float<T>(x[i + k]);
      }
    }
  }
};

/// The spread of both sides in two more passes, where the loss asks for it. `over_row` calls a function for the classes
/// of this thread.
template <unsigned Threads, class Loss, class Batch, class OverRow>
__device__ row_spread spread_of_block(const Loss& loss, const row_of_batch<Batch>& at, const OverRow& over_row) {
  row_spread spread;
  if constexpr (Loss::standardises) {
    const float first_student = student_seen(loss, at.student_logit(0));
    const float first_teacher = teacher_seen(loss, at.teacher_logit(0));
    spread.student.from = formula::is_masked(first_student) ? 0.0f : first_student;
    spread.teacher.from = formula::is_masked(first_teacher) ? 0.0f : first_teacher;
    __shared__ float scratch[2][4][Threads / warp_size];
    float first[4] = {}, squares[2] = {};  // sums and counts of both sides
    over_row([&](const auto&, const auto& z, const auto& t) {
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
    block_sums(first, scratch[0]);
    spread.student.mean = first[0] / first[1];
    spread.student.count = first[1];
    spread.teacher.mean = first[2] / first[3];
    spread.teacher.count = first[3];
    over_row([&](const auto&, const auto& z, const auto& t) {
#pragma unroll
      for (unsigned i = 0; i < sizeof z / sizeof z[0]; ++i) {
        const float zi = student_seen(loss, z[i]), ti = teacher_seen(loss, t[i]);
        const float student = zi - spread.student.from - spread.student.mean;
        const float teacher = ti - spread.teacher.from - spread.teacher.mean;
        squares[0] += formula::is_masked(zi) ? 0.0f : student * student;
        squares[1] += formula::is_masked(ti) ? 0.0f : teacher * teacher;
      }
    });
    block_sums(squares, scratch[1]);
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
template <unsigned Threads, student_exponentials Kind, class Loss, class Batch, class Exchange>
__device__ loss_row<Loss> loss_of_block_row(const row_of_batch<Batch>& at, const Loss& loss,
                                            const loss_weights<Loss>& weights, bool adds, const Exchange& exchange) {
  constexpr bool takes_teacher = Loss::needs_teacher;
  using Student = std::remove_cvref_t<decltype(*at.student())>;
  using Teacher = std::conditional_t<takes_teacher, std::remove_cvref_t<decltype(*at.teacher())>, Student>;
  using Gradient = std::remove_cvref_t<decltype(*at.gradient())>;
  using walk = row_walk<Threads, Student, Teacher, Gradient>;
  constexpr unsigned width = walk::width;
  const Student* const student = at.student();
  const auto* const teacher = at.teacher();
  const unsigned classes = at.classes(), teacher_classes = at.teacher_classes();
  // Losses without a teacher have none that could lie badly.
  const bool wide = walk::is_wide(student) && (!takes_teacher || walk::is_wide(teacher));
  // Before the barriers: the gradient may overwrite the logits only after them.
  const row_label label = label_seen(loss, at);
  // Calls step(numbers of the classes, logits of the student, logits of the teacher) for the classes of this thread.
  const auto over_row_by = [&]<bool Backwards>(std::bool_constant<Backwards>, const auto& step) {
    walk::template over<Backwards>(
        classes,
        [&](unsigned c) {
          const float z[1] = {to_float(student[c])}, t[1] = {takes_teacher ? at.teacher_logit(c) : 0.0f};
          step(typename walk::group{c}, z, t);
        },
        [&]<unsigned Packs>(unsigned c) {
          float z[Packs * width], t[Packs * width] = {};
          if (wide && (!takes_teacher || typename walk::group{c}(Packs * width - 1) < teacher_classes)) {
            walk::load_wide(student, c, z);
            if constexpr (takes_teacher) walk::load_wide(teacher, c, t);
          } else {
            walk::load(student, c, classes, z);
            if constexpr (takes_teacher) walk::load(teacher, c, teacher_classes, t);
          }
          step(typename walk::group{c}, z, t);
        });
  };
  const auto over_row = [&](const auto& step) { over_row_by(std::false_type{}, step); };

  const row_spread spread = spread_of_block<Threads>(loss, at, over_row);
  const softenings soft(loss, spread);
  partial_row<Loss, Kind> part;
  if constexpr (Exchange::reads) {
    row_reader<Loss, Kind> mine(loss, soft, label);
    over_row([&](const auto& class_of, const auto& z, const auto& t) { mine.add(class_of, z, t); });
    join_block<Threads>(mine, part, soft, [&](side of, unsigned first) {
      // A group, or as much of one as the row has; classes beyond a single pack are another thread's, and not larger.
      unsigned found = first;
      float largest = -float_infinity;
      for (unsigned i = 0; i < walk::packs * width; ++i) {
        const unsigned c = typename walk::group{first}(i);
        if (c >= classes) break;
        if (Loss::label_apart && c == label.at) continue;
        const float x = of == side::student ? student_seen(loss, to_float(student[c]))
                                            : teacher_seen(loss, takes_teacher ? at.teacher_logit(c) : 0.0f);
        if (!(x > largest)) continue;
        largest = x;
        found = c;
      }
      return found;
    });
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
    __shared__ float scratch[Loss::probability_sums][Threads / warp_size];
    formula::few<float, Loss::probability_sums> second = {};
    if constexpr (Exchange::sums_probabilities) {
      over_row([&](const auto& class_of, const auto& z, const auto& t) {
#pragma unroll
        for (unsigned i = 0; i < sizeof z / sizeof z[0]; ++i)
          formula::add_probabilities(loss, row.terms, row.see(numbers_of(class_of(i), z[i], t[i])), second);
      });
      block_sums(second.at, scratch);
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
  over_row_by(std::true_type{}, [&](const auto& class_of, const auto& z, const auto& t) {
    constexpr unsigned size = sizeof z / sizeof z[0];
    float d[size];
#pragma unroll
    for (unsigned i = 0; i < size; ++i) d[i] = gradient.beside_label(numbers_of(class_of(i), z[i], t[i]));
    if (walk::template has<size>(class_of(0), label.at)) {
#pragma unroll
      for (unsigned i = 0; i < size; ++i)
        if (class_of(i) == label.at) d[i] = gradient.at_label(d[i]);
    }
    if constexpr (Loss::caps) {
#pragma unroll
      for (unsigned i = 0; i < size; ++i) d[i] *= formula::student_slope<float_math>(loss, z[i]);
    }
    const unsigned c = class_of(0);
    if constexpr (size == 1) {
      d_student[c] = from_float<Gradient>(adds ? to_float(d_student[c]) + d[0] : d[0]);
    } else {
      if (adds) {
        float before[size];
        walk::load(d_student, c, classes, before);
#pragma unroll
        for (unsigned i = 0; i < size; ++i) d[i] = before[i] + d[i];
      }
      walk::store(d, c, wide_gradient, d_student);
    }
  });
  return result;
}

template <class Logit>
inline constexpr bool is_bfloat16 = std::is_same_v<std::remove_cvref_t<Logit>, bfloat16>;
/// Blocks that must fit a multiprocessor: 64 registers for a thread where all logits are bfloat16, 80 or 102 for short
/// rows of floats, what it wants where a class has more than 3 floats or a pass more, which would spill (nvcc 13.0).
/// Long rows of floats go one at a time: 132 of 32,000 classes stay in an H100's L2 for their second pass (206
/// microseconds instead of 233 for 1,024 rows).
template <unsigned Threads, class Loss, class Batch>
inline constexpr unsigned block_row_blocks = [] {
  constexpr bool narrow = is_bfloat16<decltype(*Batch{}.student.data)> &&
                          is_bfloat16<decltype(*Batch{}.teacher.data)> && is_bfloat16<decltype(*Batch{}.gradient.data)>;
  constexpr bool small = floats_of_class<Loss> <= 3 && Loss::probability_sums == 0 && !Loss::standardises;
  if (Threads == few_row_threads) return !small ? 4u : narrow ? 8u : is_more_than_dense<Batch> ? 5u : 6u;
  return small && narrow ? 2u : 1u;
}();

/// Row blockIdx.x of a batch, with a block of Threads; its terms go to terms[blockIdx.x].
template <unsigned Threads, class Loss, class Batch, class Exchange = whole_rows>
__device__ void loss_of_block_rows(const Batch& batch, const Loss* loss_in_memory, const counted_rows* counted,
                                   loss_row<Loss>* terms, const Exchange& exchange = Exchange{}) {
  const Loss& loss = *loss_in_memory;  // read where it is used: fewer registers than a copy
  const row_of_batch<Batch> at(batch, blockIdx.x);
  loss_row<Loss> result;
  if (at.ignored) {
    exchange.ignored();
    if (at.wants_gradient() && !batch.add_to_gradient)
      for (unsigned c = threadIdx.x; c < at.classes(); c += Threads) at.gradient()[c] = {};
  } else {
    const loss_weights<Loss> weights(loss, static_cast<float>(divisor_of(batch, counted)));
    const auto run = [&]<student_exponentials Kind>() {
      result = loss_of_block_row<Threads, Kind>(at, loss, weights, batch.add_to_gradient, exchange);
    };
    using enum student_exponentials;
    if constexpr (!takes_hard_exponentials<Loss>) {
      run.template operator()<shared>();
    } else if constexpr (Loss::standardises || Threads == few_row_threads) {
      run.template operator()<separate>();
    } else {
      if (loss.temperature == 2.0f)
        run.template operator()<squared>();
      else
        run.template operator()<separate>();
    }
  }
  if (!Exchange::ends || threadIdx.x != 0) return;
  terms[blockIdx.x] = result;
  if (batch.row_values != nullptr) store_values(loss, result, batch.row_values + blockIdx.x * (Loss::values + 1));
}

}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
