/// The logit losses on one row of many classes: one pass over the logits, one over cached exponentials.
///
/// A row is read in tiles of a few KB. Each tile finds its own maximum, then its exponentials, which stay in scratch,
/// and sums relative to that maximum; the tiles are put together in double. The gradient is made from the scratch: no
/// exponential is computed twice, and each logit is fetched from memory once (twice where a term's gradient reads it).
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "kd/core/abi.hpp"
#include "kd/cpu/detail/logit_formats.hpp"
#include "kd/cpu/detail/loss_call.hpp"
#include "kd/cpu/detail/loss_math.hpp"
#include "kd/cpu/exponential.hpp"

namespace kd::inline KD_ABI::cpu::detail {

/// Sums of one tile relative to its own maxima (floored at the lowest float, so that an all-masked tile has no
/// infinity minus infinity).
template <class Loss>
struct loss_tile {
  float student_max, teacher_max;
  formula::sums<Loss, float> sums;
};
/// At least the floats of any loss_tile.
inline constexpr std::size_t most_loss_tile_floats = 2 + 3 + 6 + formula::most_loss_values;

/// Classes per tile. Student, teacher and two exponentials of a tile take 16 KB. On a Zen 4 512 was 6% slower with the
/// rows in cache, 2,048 no faster, at 32,000 and 128,256 classes 5 to 15% slower.
inline constexpr std::size_t loss_tile_classes = 1024;

constexpr std::size_t loss_tiles(std::size_t classes) { return (classes + loss_tile_classes - 1) / loss_tile_classes; }
/// Floats of one array of a row's exponentials: whole vectors, so that tails need no care.
constexpr std::size_t loss_row_floats(std::size_t classes) { return (classes + 15) / 16 * 16; }

/// Floats of scratch of one thread.
constexpr std::size_t loss_thread_floats(std::size_t classes) {
  return (3 * loss_row_floats(classes) + 16 + loss_tiles(classes) * most_loss_tile_floats + 15) / 16 * 16;
}

/// Scratch of one thread.
template <class Loss>
struct loss_row_scratch {
  float* student;  // exp((z - max) / T), [classes]
  float* teacher;  // exp((t - max) / T')
  float* hard;     // exp(z - max), student_exponentials::separate only
  loss_tile<Loss>* tiles;
};

/// Asks for what lies one tile further on, of this row or the next; past the end of the logits it does nothing. Pages
/// are as long as tiles, and hardware prefetchers stop at their ends: without this 256 x 32,000 took 40% longer on a
/// Zen 4. Always inline: g++ 12 takes a function that only prefetches for one without effect, and drops its calls.
template <class T>
[[gnu::always_inline]] inline void prefetch_next_tile(const T* at) {
  // As an integer, since a pointer must not be moved past the end of its array.
  __builtin_prefetch(  // NOLINTNEXTLINE(performance-no-int-to-ptr)
      reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(at) + loss_tile_classes * sizeof(T)));
}

/// Calls step(i, vector, vector...) for each vector of the given arrays of `count` floats, the tail masked.
template <std::size_t Width, class Step, class... Arrays>
[[gnu::always_inline]] inline void for_each_vector(std::size_t count, const Step& step, Arrays... arrays) {
  std::size_t i = 0;
  for (; i + Width <= count; i += Width) step(i, load<Width>(arrays + i)...);
  if (i < count) step(i, load_masked<Width>(arrays + i, count - i)...);
}

/// The first position of `value` among `count` logits as `seen` makes them of vectors; 0 where it does not occur.
template <std::size_t Width, class T, class Seen>
inline std::size_t first_position(const T* from, std::size_t count, float value, const Seen& seen) {
  constexpr std::size_t group = 8 * Width;
  std::size_t i = 0;
  const vector_of<Width> wanted = splat<Width>(value);
  const auto any = [](const integers_of<Width>& found) {
    return fold_lanes<Width>(found, [](const auto& a, const auto& b) { return a | b; }) != 0;
  };
  for (; i + group <= count; i += group) {
    integers_of<Width> found = {};
    for (std::size_t j = 0; j < group; j += Width) found |= seen(load<Width>(from + i + j)) == wanted;
    if (any(found)) break;
  }
  for (; i < count; i += Width) {
    const integers_of<Width> found = seen(load_of<Width>(from, i, count)) == wanted;
    if (!any(found)) continue;
    std::size_t lane = 0;
    while (found[lane] == 0) ++lane;
    return i + lane;
  }
  return 0;
}

/// A tile's logits as floats, and their maximum, at least the lowest float.
struct float_tile {
  const float* logits;
  float max;
};
/// They are where they lie, or, where that is not the tile (not InPlace) or one is to be hidden, in `copy`, which has
/// room for whole vectors. Classes from `known` on are masked, as is `hidden`. The tile has the logits as `seen` makes
/// them.
template <std::size_t Width, bool InPlace, class T, class Seen>
[[gnu::always_inline]] inline float_tile tile_of(const T* from, std::size_t known, std::size_t count,
                                                 std::size_t hidden, float* copy, const Seen& seen) {
  using vector = vector_of<Width>;
  vector max = splat<Width>(std::numeric_limits<float>::lowest()), other = max;
  const auto largest = [&](const float* logits) __attribute__((always_inline)) {
    std::size_t i = 0;
    for (; i + 2 * Width <= count; i += 2 * Width) {
      max = larger(load<Width>(logits + i), max);
      other = larger(load<Width>(logits + i + Width), other);
    }
    for (; i < count; i += Width) max = larger(load_of<Width>(logits, i, count), max);
    return float_tile{logits, largest_lane<Width>(larger(other, max))};
  };
  if constexpr (InPlace)
    if (hidden >= count && known >= count) return largest(from);
  known = std::min(known, count);
  for (std::size_t i = 0; i < count; i += Width) {
    prefetch_next_tile(from + i);
    const vector v = seen(load_of<Width>(from, i, known));
    store(copy + i, v);
    max = larger(v, max);
  }
  if (hidden >= count) return {copy, largest_lane<Width>(max)};
  copy[hidden] = -std::numeric_limits<float>::infinity();
  max = other;
  return largest(copy);
}

/// Writes the exponentials of a tile of `count` classes and returns its sums. Its logits may lie where the exponentials
/// go.
template <std::size_t Width, student_exponentials Kind, class Call>
inline void read_tile(const Call& a, const float_tile& student_logits, const float_tile& teacher_logits,
                      std::size_t count, exponential_scale scale, exponential_scale teacher_scale, float T_ratio,
                      float* ez, float* et, float* hard, loss_tile<typename Call::Loss>& tile) {
  using Loss = typename Call::Loss;
  using vector = vector_of<Width>;
  constexpr bool teacher = Loss::needs_teacher;
  const float *const z = student_logits.logits, *const t = teacher_logits.logits;
  tile.student_max = student_logits.max;
  tile.teacher_max = teacher_logits.max;
  const vector zm = splat<Width>(tile.student_max), tm = splat<Width>(tile.teacher_max);
  constexpr exponential_scale hard_scale(1.0f);
  formula::sums<Loss, vector> s;
  const auto student = [&](std::size_t i, const vector& dz, const vector& e) __attribute__((always_inline)) {
    store(ez + i, e);
    s.student += e;
    if constexpr (Loss::hardens && Kind == student_exponentials::squared) s.hard += e * e;
    if constexpr (Kind == student_exponentials::separate) {
      const vector h = exp_nonpositive<Width>(dz, hard_scale);
      store(hard + i, h);
      s.hard += h;
    }
  };
  const auto add = [&](std::size_t i, const vector& zi, const vector& ti) __attribute__((always_inline)) {
    if constexpr (Loss::logit_sums > 0) {
      one_class<vector> one = {};
      one.student_logit = zi;
      one.teacher_logit = ti;
      formula::add_logits(a.loss, one, s.logits);
    }
    if constexpr (Loss::softens || Loss::hardens) {
      const vector dz = zi - zm;
      const auto z_masked = dz < scale.underflow;
      const vector zx = z_masked ? splat<Width>(scale.zero) : dz;
      const vector ze = exp_clamped<Width>(zx, scale);
      student(i, dz, ze);
      if constexpr (Call::teacher_softens) {
        const vector dt = ti - tm;
        const auto t_masked = dt < teacher_scale.underflow;
        const vector tx = t_masked ? splat<Width>(teacher_scale.zero) : dt;
        const vector te = exp_clamped<Width>(tx, teacher_scale);
        store(et + i, te);
        s.teacher += te;
        // The gap is taken before the division by T: equal rows then give exactly 0. It may be infinite or NaN where a
        // probability is 0.
        formula::add_moments<Loss>(s.moments, ze, te, zx, tx, vector(dt * T_ratio - dz), z_masked, t_masked);
      } else {
        formula::add_moments<Loss>(s.moments, ze, ze, zx, zx, splat<Width>(0), z_masked, z_masked);
      }
    }
  };
  if constexpr (teacher) {
    for_each_vector<Width>(
        count,
        [&](std::size_t i, const vector& zi, const vector& ti) __attribute__((always_inline)) {
          prefetch_next_tile(z + i);
          prefetch_next_tile(t + i);
          add(i, zi, ti);
        },
        z, t);
  } else {
    for_each_vector<Width>(
        count, [&](std::size_t i, const vector& zi) __attribute__((always_inline)) { add(i, zi, splat<Width>(0)); }, z);
  }
  tile.sums.student = sum_of_lanes<Width>(s.student);
  tile.sums.hard = Kind == student_exponentials::shared ? tile.sums.student : sum_of_lanes<Width>(s.hard);
  tile.sums.teacher = Call::teacher_softens ? sum_of_lanes<Width>(s.teacher) : tile.sums.student;
  for (std::size_t i = 0; i != Loss::moments.size; ++i) tile.sums.moments.at[i] = sum_of_lanes<Width>(s.moments.at[i]);
  for (std::size_t i = 0; i != Loss::logit_sums; ++i) tile.sums.logits.at[i] = sum_of_lanes<Width>(s.logits.at[i]);
}

/// Stores a vector past the caches where the compiler and the instruction set know how; `to` is aligned to it.
template <std::size_t Width>
inline void store_streamed(float* to, const vector_of<Width>& v) {
#if defined(__clang__)
  __builtin_nontemporal_store(v, reinterpret_cast<vector_of<Width>*>(to));
#else
#if defined(__AVX512F__)
  if constexpr (Width == 16) return __builtin_ia32_movntps512(to, v);
#endif
#if defined(__AVX__)
  if constexpr (Width == 8) return __builtin_ia32_movntps256(to, v);
#endif
#if defined(__SSE__)
  if constexpr (Width == 4) return __builtin_ia32_movntps(to, v);
#endif
  store(to, v);
#endif
}

/// Makes the streamed stores of this thread visible before it goes on.
inline void finish_streaming() {
#if defined(__SSE__)
  __builtin_ia32_sfence();
#endif
}

/// Writes gradient(i), a vector, for i of 0, Width, 2 * Width, ..., `count` numbers in all.
template <std::size_t Width, class T, class Gradient>
[[gnu::always_inline]] inline void write_gradient(T* d, std::size_t count, const Gradient& gradient, writing how) {
  const auto part = [&](std::size_t i, std::size_t lanes) {
    float values[Width];
    store(values, gradient(i));
    for (std::size_t l = 0; l < lanes; ++l)
      d[i + l] = from_float<T>(how == writing::added ? to_float(d[i + l]) + values[l] : values[l]);
  };
  std::size_t i = 0;
  if (how == writing::added) {
    for (; i + Width <= count; i += Width) store_logits<Width>(d + i, load<Width>(d + i) + gradient(i));
  } else if (std::is_same_v<T, float> && how == writing::streamed) {
    // Up to the first aligned vector; a whole vector is computed, and the scratch has room behind its end for it.
    const std::size_t past = reinterpret_cast<std::uintptr_t>(d) / sizeof(float) % Width;
    const std::size_t head = std::min(count, past == 0 ? 0 : Width - past);
    if (head > 0) part(0, head);
    if constexpr (std::is_same_v<T, float>)
      for (i = head; i + Width <= count; i += Width) store_streamed<Width>(d + i, gradient(i));
  } else {
    for (; i + Width <= count; i += Width) store_logits<Width>(d + i, gradient(i));
  }
  if (i < count) part(i, count - i);
}

/// exp of a tile's maximum relative to the row's, 0 where all of the tile underflows.
inline double tile_scale(double below_max) {
  if (below_max == 0) return 1.0;
  const double scale = std::exp(below_max);
  return scale < std::numeric_limits<float>::min() ? 0.0 : scale;
}

/// By what the exponentials of a tile are multiplied to be relative to the row's maxima.
struct tile_scales {
  double student, teacher, hard;
};

/// The sums of a row, relative to the largest logits, and their classes.
template <class Loss>
struct row_sums {
  formula::sums<Loss, double> sums;
  float student_max = -std::numeric_limits<float>::infinity(), teacher_max = student_max;
  std::size_t student_class = 0, teacher_class = 0;
  double inverse_T, inverse_teacher_T;

  template <student_exponentials Kind>
  tile_scales scales_of(const auto& tile) const {
    const double dz = double{tile.student_max} - student_max, dt = double{tile.teacher_max} - teacher_max;
    const double student = tile_scale(dz * inverse_T);
    return {student, Loss::softens && Loss::needs_teacher ? tile_scale(dt * inverse_teacher_T) : student,
            Kind == student_exponentials::separate  ? tile_scale(dz)
            : Kind == student_exponentials::squared ? student * student
                                                    : student};
  }
  /// A tile, or what another slice has of the row.
  template <student_exponentials Kind>
  void add(const auto& tile) {
    const double dz = double{tile.student_max} - student_max, dt = double{tile.teacher_max} - teacher_max;
    const tile_scales scale = scales_of<Kind>(tile);
    formula::sums<Loss, double> moved;
    moved.student = tile.sums.student;
    moved.teacher = tile.sums.teacher;
    for (std::size_t i = 0; i != Loss::moments.size; ++i) moved.moments.at[i] = tile.sums.moments.at[i];
    formula::move_moments(moved, scale.student, scale.teacher, dz, dt, inverse_teacher_T / inverse_T);
    for (std::size_t i = 0; i != Loss::moments.size; ++i) sums.moments.at[i] += moved.moments.at[i];
    for (std::size_t i = 0; i != Loss::logit_sums; ++i) sums.logits.at[i] += tile.sums.logits.at[i];
    // fma by name: were one of these two sums contracted and the other not, equal rows would differ.
    sums.student = std::fma(scale.student, double{tile.sums.student}, sums.student);
    sums.teacher = std::fma(scale.teacher, double{tile.sums.teacher}, sums.teacher);
    sums.hard += scale.hard * tile.sums.hard;
  }
};

/// The numbers of a row in the precision of its classes.
template <class Loss, class Math>
inline formula::rows<Loss, float, Math> in_float(const formula::rows<Loss, double, Math>& rows) {
  formula::rows<Loss, float, Math> out;
  Loss::each([&](auto index) {
    constexpr std::size_t i = decltype(index)::value;
    const auto& from = rows.template at<i>();
    auto& to = out.template at<i>();
    const auto copy_few = [](const auto& a, auto& b) {
      for (std::size_t k = 0; k < std::size(a.at); ++k) b.at[k] = static_cast<float>(a.at[k]);
    };
    copy_few(from.moments, to.moments);
    copy_few(from.logit_sums, to.logit_sums);
    copy_few(from.probability_sums, to.probability_sums);
    copy_few(from.kept, to.kept);
    to.spread = {static_cast<float>(from.spread.mean), static_cast<float>(from.spread.deviation),
                 static_cast<float>(from.spread.count), static_cast<float>(from.spread.from)};
    using row = std::remove_cvref_t<decltype(from)>;
    using float_row = std::remove_cvref_t<decltype(to)>;
    const auto copy = [&](double row::*a, float float_row::*b) { to.*b = static_cast<float>(from.*a); };
    copy(&row::student, &float_row::student);
    copy(&row::teacher, &float_row::teacher);
    copy(&row::inverse_T, &float_row::inverse_T);
    copy(&row::inverse_teacher_T, &float_row::inverse_teacher_T);
    copy(&row::log_ratio, &float_row::log_ratio);
    copy(&row::log_teacher, &float_row::log_teacher);
    copy(&row::log_mass, &float_row::log_mass);
    copy(&row::classes, &float_row::classes);
    copy(&row::label_student, &float_row::label_student);
    copy(&row::label_teacher, &float_row::label_teacher);
    copy(&row::log_sum_exp, &float_row::log_sum_exp);
    copy(&row::value, &float_row::value);
  });
  return out;
}

/// The spread of a row of `count` logits as `seen` makes them. Differences are taken from the first that is not masked,
/// so that equal logits have a deviation of 0.
template <std::size_t Width, class T, class Seen>
inline formula::logit_spread<double> spread_of_row(const T* logits, std::size_t count, const Seen& seen) {
  using vector = vector_of<Width>;
  std::size_t first = 0;
  while (first < count && formula::is_masked(to_float(logits[first]))) ++first;
  if (first == count) return {};
  const float origin = seen(splat<Width>(to_float(logits[first])))[0];
  // Sums of floats no longer than a tile, put together in double.
  const auto sums_over = [&](const auto& add) {
    std::array<double, 2> sums = {};
    for (std::size_t begin = 0; begin < count; begin += loss_tile_classes) {
      const std::size_t size = std::min(loss_tile_classes, count - begin);
      vector of_tile[2] = {};
      for (std::size_t i = 0; i < size; i += Width) {
        const vector x = seen(load_of<Width>(logits + begin, i, size));
        add(x, formula::is_masked(x), of_tile);
      }
      for (std::size_t k = 0; k < 2; ++k) sums[k] += sum_of_lanes<Width>(of_tile[k]);
    }
    return sums;
  };
  const auto [sum, counted] = sums_over([&](const vector& x, const auto& masked, vector(&to)[2]) {
    to[0] += masked ? splat<Width>(0) : x - origin;
    to[1] += masked ? splat<Width>(0) : splat<Width>(1);
  });
  const auto mean = static_cast<float>(sum / counted);
  const auto [squares, off_mean] = sums_over([&](const vector& x, const auto& masked, vector(&to)[2]) {
    const vector off = masked ? splat<Width>(0) : x - origin - mean;
    to[0] += off * off;
    to[1] += off;
  });
  const double exact = squares - off_mean * off_mean / counted;
  return {sum / counted, exact > 0 ? std::sqrt(exact / (counted - 1)) : 0.0, counted, origin};
}

/// The exponentials of a row whose logits are divided by their deviation. Not inline: where g++ 12 computes those of
/// student and teacher in one vector it leaves out the rounding to float of one temperature, and equal rows differ.
[[gnu::noinline]] inline exponential_scale standardised_scale(float temperature, double deviation) {
  return exponential_scale(static_cast<float>(temperature * (deviation + double{formula::least_deviation})));
}

/// Whether a loss reads logits of type T where they lie.
template <class Loss, class T>
inline constexpr bool reads_in_place = std::is_same_v<T, float> && !Loss::caps;

/// What a row is joined with before it is at its end: nothing, where it has all classes. Others: split_vocabulary.hpp.
struct whole_vocabulary {
  static constexpr bool is_whole = true, ends = true;
  static constexpr std::size_t first = 0;  // of this slice's classes among all
  static constexpr std::size_t all_classes(std::size_t here) { return here; }
  /// Whether to go on, with sums, classes of the maxima and the label's logits that are those of the whole row.
  template <class Loss>
  static constexpr bool join(std::size_t /*row*/, bool /*has_label*/, row_sums<Loss>&, float& /*z*/, float& /*t*/) {
    return true;
  }
  template <std::size_t Size>
  static constexpr bool join(std::size_t /*row*/, formula::few<double, Size>& /*probability_sums*/) {
    return true;
  }
};

/// One row, or the slice of it that is here: its values into `out`, its gradient unless the call wants none or the row
/// is at fault.
template <std::size_t Width, student_exponentials Kind, class Call, class Slice = whole_vocabulary>
inline void loss_of_row(const Call& a, std::size_t row, const loss_row_scratch<typename Call::Loss>& s,
                        loss_row<typename Call::Loss>& out, const Slice& slice = {}) {
  using Loss = typename Call::Loss;
  using vector = vector_of<Width>;
  using std::size_t;
  constexpr bool teacher = Loss::needs_teacher;
  constexpr float infinity = std::numeric_limits<float>::infinity(), lowest = std::numeric_limits<float>::lowest();
  const Loss& loss = a.loss;
  const size_t classes = a.classes(), tiles = loss_tiles(classes);
  const size_t known = teacher ? std::min(classes, a.teacher_classes()) : 0;
  const auto* z = a.student(row);
  const auto* t = teacher ? a.teacher(row) : nullptr;
  const size_t label = a.has_labels() ? a.label(row) : std::numeric_limits<size_t>::max();
  const size_t here = std::min(label - slice.first, classes);  // in this slice; `classes` where it is elsewhere
  const auto student_seen = [&](const vector& x) __attribute__((always_inline)) { return a.student_logit(x); };
  const auto teacher_seen = [&](const vector& x) __attribute__((always_inline)) { return a.teacher_logit(x); };
  float z_label = here < classes ? student_seen(splat<Width>(to_float(z[here])))[0] : 0.0f;
  float t_label = here < known ? teacher_seen(splat<Width>(to_float(t[here])))[0] : -infinity;
  const float label_slope = Loss::caps && here < classes ? a.student_slope(splat<Width>(to_float(z[here])))[0] : 1.0f;
  const auto size_of = [&](size_t i) { return std::min(loss_tile_classes, classes - i * loss_tile_classes); };
  const auto known_of = [&](size_t i) { return known - std::min(known, i * loss_tile_classes); };

  formula::logit_spread<double> spread = {}, teacher_spread = {};
  if constexpr (Loss::standardises) {
    spread = spread_of_row<Width>(z, classes, student_seen);
    teacher_spread = spread_of_row<Width>(t, known, teacher_seen);
  }
  exponential_scale scale = a.scale, teacher_scale = a.teacher_scale;
  float T_ratio = a.T_ratio;
  if constexpr (Loss::standardises) {
    scale = standardised_scale(a.temperature(), spread.deviation);
    teacher_scale = standardised_scale(a.teacher_temperature(), teacher_spread.deviation);
    T_ratio = static_cast<float>(teacher_scale.inverse_temperature() / scale.inverse_temperature());
  }

  row_sums<Loss> all;
  all.inverse_T = scale.inverse_temperature();
  all.inverse_teacher_T = teacher_scale.inverse_temperature();
  for (size_t i = 0; i < tiles; ++i) {
    const size_t first = i * loss_tile_classes, count = size_of(i);
    const size_t hidden = Loss::label_apart && here >= first ? here - first : count;
    float_tile zi = tile_of<Width, reads_in_place<Loss, typename Call::Student>>(z + first, count, count, hidden,
                                                                                 s.student + first, student_seen);
    float_tile ti = {nullptr, lowest};
    if constexpr (teacher)
      ti = tile_of<Width, reads_in_place<Loss, typename Call::Teacher>>(t + first, known_of(i), count, hidden,
                                                                        s.teacher + first, teacher_seen);
    loss_tile<Loss>& tile = s.tiles[i];
    read_tile<Width, Kind>(a, zi, ti, count, scale, teacher_scale, T_ratio, s.student + first, s.teacher + first,
                           s.hard + first, tile);
    if (tile.student_max > all.student_max) {
      all.student_max = tile.student_max;
      all.student_class = slice.first + first + first_position<Width>(z + first, count, tile.student_max, student_seen);
    }
    if (teacher && tile.teacher_max > all.teacher_max) {
      all.teacher_max = tile.teacher_max;
      all.teacher_class =
          slice.first + first +
          first_position<Width>(t + first, std::min(count, known_of(i)), tile.teacher_max, teacher_seen);
    }
  }
  for (size_t i = 0; i < tiles; ++i) all.template add<Kind>(s.tiles[i]);
  if (!slice.join(row, here < classes, all, z_label, t_label)) return;
  if constexpr (!Loss::label_apart)  // a side without a class has no probabilities
    for (double* const sum : {&all.sums.student, &all.sums.teacher, &all.sums.hard})
      if (!(*sum > 0)) *sum = std::numeric_limits<double>::quiet_NaN();

  double hard_max = all.student_max, others_scale = 1, label_hard = 0;
  if constexpr (Loss::label_apart) {
    const auto takes = [&](float x, float max, size_t at) { return x > max || (x == max && label < at); };
    if (takes(z_label, all.student_max, all.student_class)) all.student_class = label;
    if (takes(t_label, all.teacher_max, all.teacher_class)) all.teacher_class = label;
    hard_max = std::max(all.student_max, z_label);
    others_scale = tile_scale(all.student_max - hard_max);
    label_hard = tile_scale(z_label - hard_max);
    all.sums.hard = all.sums.hard * others_scale + label_hard;
    if constexpr (Loss::logit_sums > 0) {
      one_class<double> one = {};
      one.student_logit = z_label;
      one.teacher_logit = t_label;
      formula::add_logits(loss, one, all.sums.logits);
    }
  }
  const double hard_log = Loss::hardens ? std::log(all.sums.hard) : 0.0;
  auto r = formula::rows_of<loss_math>(loss, all.sums, all.inverse_T, all.inverse_teacher_T, double{all.teacher_max},
                                       hard_log + hard_max, static_cast<double>(slice.all_classes(classes)),
                                       (double{z_label} - all.student_max) * all.inverse_T,
                                       (double{t_label} - all.teacher_max) * all.inverse_teacher_T, spread);
  auto row_in_float = in_float<Loss, loss_math>(r);

  // How the exponentials of a tile make its probabilities, over a unit: of `student` and `teacher` one is 1, both are
  // for equal rows, whose difference is then exactly 0, fused or not. Where gradients read logits, what they divide by
  // the units must stay in range: units are at least `least`, and the rest of the way is `beyond`.
  constexpr bool guards_units = Loss::reads_logits;
  constexpr double least = guards_units ? 0x1p-40 : 0;
  struct tile_unit {
    float student, teacher, beyond, hard_beyond;
    double unit, hard_unit;
  };
  const auto unit_of = [&](size_t i) {
    const tile_scales scales = all.template scales_of<Kind>(s.tiles[i]);
    const double student = all.sums.student > 0 ? scales.student / all.sums.student : 0.0;
    const double teachers = Call::teacher_softens && all.sums.teacher > 0 ? scales.teacher / all.sums.teacher : 0.0;
    const double larger_one = std::max(student, teachers), hard_one = scales.hard * others_scale / all.sums.hard;
    tile_unit u = {0, 0, 1, 1, 1, std::max(hard_one, least)};
    if (larger_one > 0) {
      u.student = static_cast<float>(student / larger_one);
      u.teacher = static_cast<float>(teachers / larger_one);
      u.unit = std::max(larger_one, least);
    }
    if (guards_units) {
      u.beyond = static_cast<float>(larger_one / u.unit);
      u.hard_beyond = static_cast<float>(hard_one / u.hard_unit);
    }
    return u;
  };
  const auto class_of = [&]<class Real>(const tile_unit& u, const Real& ez, const Real& et, const Real& h,
                                        const Real& zi, const Real& ti) __attribute__((always_inline)) {
    one_class<Real> one = {};
    one.student = ez * u.student;
    if constexpr (Loss::hardens) {
      one.hard = Kind == student_exponentials::squared ? ez * ez : h;
      one.hard_unit = formula::fill<Real>(static_cast<float>(u.hard_unit));
      if constexpr (guards_units) one.hard *= u.hard_beyond;
    }
    if constexpr (Call::teacher_softens) {
      one.teacher = et * u.teacher;
      one.difference = one.student - one.teacher;
    }
    if constexpr (guards_units) {
      one.student *= u.beyond;
      one.teacher *= u.beyond;
      one.difference *= u.beyond;
    }
    one.unit = formula::fill<Real>(static_cast<float>(u.unit));
    if constexpr (Call::reads_gap) {
      const Real gap = (ti - all.teacher_max) * T_ratio - (zi - all.student_max);
      const auto& one_row = row_in_float.template at<0>();
      const Real log_gap = one_row.log_ratio - gap * one_row.inverse_T;
      one.log_gap = one.student > 0.0f ? log_gap : formula::fill<Real>(0);
      one.teacher_log_gap = one.teacher > 0.0f ? log_gap : formula::fill<Real>(0);
    }
    one.student_logit = zi;
    one.teacher_logit = ti;
    return one;
  };
  constexpr bool reads_again = Call::reads_logits;
  const auto classes_at = [&](const tile_unit& u, size_t first, size_t count, size_t i) __attribute__((always_inline)) {
    const vector ez = load<Width>(s.student + first + i);
    vector et = {}, h = ez, zi = {}, ti = {};
    if constexpr (Kind == student_exponentials::separate) h = load<Width>(s.hard + first + i);
    if constexpr (Call::teacher_softens) et = load<Width>(s.teacher + first + i);
    if constexpr (reads_again) zi = student_seen(load_of<Width>(z + first, i, count));
    if constexpr (reads_again && teacher)
      ti = teacher_seen(load_of<Width>(t + first, i, known - std::min(known, first)));
    return class_of(u, ez, et, h, zi, ti);
  };

  if constexpr (Loss::probability_sums > 0) {
    formula::few<double, Loss::probability_sums> sums = {};
    for (size_t i = 0; i < tiles; ++i) {
      const size_t first = i * loss_tile_classes, count = size_of(i);
      const tile_unit u = unit_of(i);
      const auto unit = static_cast<float>(u.unit);
      formula::few<vector, Loss::probability_sums> of_tile = {};
      for (size_t k = 0; k < count; k += Width) {
        one_class<vector> one = classes_at(u, first, count, k);
        one.student *= unit;
        one.teacher *= unit;
        one.difference *= unit;
        one.unit = splat<Width>(1);
        formula::add_probabilities(loss, row_in_float, one, of_tile);
      }
      for (size_t k = 0; k != Loss::probability_sums; ++k) sums.at[k] += sum_of_lanes<Width>(of_tile.at[k]);
    }
    if (!slice.join(row, sums)) return;
    formula::take_probabilities(loss, sums, r);
    row_in_float = in_float<Loss, loss_math>(r);
  }

  for (double& value : out.values) value = 0;
  soft_values(loss, r, out.values);
  if constexpr (Loss::hardens)
    hard_values(
        loss, hard_log, hard_max, z_label, static_cast<double>(slice.all_classes(classes)),
        [&](size_t i) { return all.sums.logits.at[i]; }, out.values);
  out.correct = all.student_class == label;
  out.agrees = teacher && all.student_class == all.teacher_class;
  finish_values(loss, out);
  if (!a.batch.gradient.data || !out.finite) return;

  double weights[Loss::size];
  const double row_weight = a.gradient_weight(row);
  Loss::each(
      [&](auto index) { weights[index] = a.template gradient_weight<decltype(index)::value, double>() * row_weight; });
  auto* d = a.gradient(row);
  float label_gradient = 0, label_before = 0;
  const bool label_is_here = Loss::needs_label && here < classes;
  if (label_is_here && a.how == writing::added) label_before = to_float(d[here]);
  for (size_t i = 0; i < tiles; ++i) {
    const size_t first = i * loss_tile_classes, count = size_of(i);
    const tile_unit u = unit_of(i);
    float factors[Loss::size];
    Loss::each([&](auto index) {
      constexpr formula::terms side = Loss::template term_at<decltype(index)::value>::side;
      factors[index] = static_cast<float>(side == formula::terms::softened ? weights[index] * u.unit
                                          : side == formula::terms::hard   ? weights[index] * u.hard_unit
                                                                           : weights[index]);
    });
    write_gradient<Width>(
        d + first, count,
        [&](size_t k) __attribute__((always_inline)) {
          const vector gradient = formula::gradient_of(loss, row_in_float, classes_at(u, first, count, k), factors);
          if constexpr (Loss::caps)
            return vector(gradient * a.student_slope(load_of<Width>(z + first, k, count)));
          else
            return gradient;
        },
        a.how);
    if (label_is_here && !Loss::label_apart && here / loss_tile_classes == i) {
      const float ez = s.student[here], h = Kind == student_exponentials::separate ? s.hard[here] : ez;
      const auto one = class_of(u, ez, Call::teacher_softens ? s.teacher[here] : 0.0f, h, z_label, t_label);
      one_class<double> hard = {};
      hard.hard = one.hard * u.hard_unit;
      hard.hard_unit = 1;
      hard.student_logit = one.student_logit;
      hard.teacher_logit = one.teacher_logit;
      double sum = 0;
      Loss::each([&](auto index) {
        constexpr size_t k = decltype(index)::value;
        if constexpr (Loss::template term_at<k>::side != formula::terms::hard)
          sum += loss.template term<k>().gradient(row_in_float.template at<k>(), one) * factors[k];
      });
      Loss::each([&](auto index) {
        constexpr size_t k = decltype(index)::value;
        if constexpr (Loss::template term_at<k>::side == formula::terms::hard)
          // Here, and not after the division: where h is near 1 this keeps its distance from it.
          sum = weights[k] *
                    (loss.template term<k>().gradient(r.template at<k>(), hard) - at_label(loss.template term<k>())) +
                sum;
      });
      label_gradient = static_cast<float>(sum);
    }
  }
  if constexpr (Loss::label_apart) {
    one_class<double> one = {};
    one.hard = label_hard / all.sums.hard;
    one.hard_unit = 1;
    one.student_logit = z_label;
    one.teacher_logit = t_label;
    label_gradient = static_cast<float>(formula::gradient_of_label(loss, r, one, weights, weights) -
                                        double{less_at_label(a)} * row_weight);
  }
  label_gradient *= label_slope;
  if (label_is_here)
    d[here] =
        from_float<typename Call::Gradient>(a.how == writing::added ? label_before + label_gradient : label_gradient);
}

}  // namespace kd::inline KD_ABI::cpu::detail
