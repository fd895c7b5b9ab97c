/// The fused loss of one row of many classes: one pass over the logits, one over cached exponentials.
///
/// A row is read in tiles of a few KB. Each tile finds its own maximum, then its exponentials, which stay in scratch,
/// and sums relative to that maximum; the tiles are put together in double. The gradient is made from the scratch: no
/// exponential is computed twice, and each logit is fetched from memory once. Reads 8 bytes and writes 4 per class.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kd/core/abi.hpp"
#include "kd/cpu/exponential.hpp"

namespace kd::inline KD_ABI::cpu::detail {

/// Which exponentials a row needs beside exp(t/T): at T = 1 softmax(z) and softmax(z/T) are one, at T = 2 exp(z) is the
/// square of exp(z/2), otherwise both are computed.
enum class student_exponentials { shared, squared, separate };

/// One call's arguments; teacher is null for cross entropy alone, d_student where only the value is wanted.
struct loss_arguments {
  std::size_t rows, classes;
  const float* student;
  const float* teacher;
  const std::int32_t* labels;
  float temperature, kd_weight, ce_weight;
  float* d_student;
  bool stream;  // write the gradient past the caches
};

/// The terms of one row, without T^2; not finite where the row is at fault.
struct loss_row {
  double cross_entropy, kd, soft_cross_entropy;
  std::uint32_t correct, agrees;
  bool finite() const { return std::isfinite(cross_entropy) && std::isfinite(kd) && std::isfinite(soft_cross_entropy); }
};

/// Sums of one tile relative to its own maxima (floored at the lowest float, so that an all-masked tile has no
/// infinity minus infinity).
struct loss_tile {
  float student_max, teacher_max;
  float student_sum;  // sum exp((z - max) / T)
  float hard_sum;     // sum exp(z - max)
  float teacher_sum;
  float gap;     // sum exp((t - max) / T) ((t - max) - (z - max))
  float energy;  // sum exp((t - max) / T) (t - max)
};

/// Classes per tile. Student, teacher and two exponentials of a tile take 16 KB. On a Zen 4 512 was 6% slower with the
/// rows in cache, 2,048 no faster, at 32,000 and 128,256 classes 5 to 15% slower.
inline constexpr std::size_t loss_tile_classes = 1024;

constexpr std::size_t loss_tiles(std::size_t classes) { return (classes + loss_tile_classes - 1) / loss_tile_classes; }
/// Floats of one array of a row's exponentials: whole vectors, so that tails need no care.
constexpr std::size_t loss_row_floats(std::size_t classes) { return (classes + 15) / 16 * 16; }

/// Scratch of one thread.
struct loss_row_scratch {
  float* student;  // exp((z - max) / T), [classes]
  float* teacher;  // exp((t - max) / T)
  float* hard;     // exp(z - max), student_exponentials::separate only
  loss_tile* tiles;
};

/// Asks for what lies one tile further on, of this row or the next; past the end of the logits it does nothing. Pages
/// are as long as tiles, and hardware prefetchers stop at their ends: without this 256 x 32,000 took 40% longer on a
/// Zen 4.
inline void prefetch_next_tile(const float* at) {
  // As an integer, since a pointer must not be moved past the end of its array.
  __builtin_prefetch(  // NOLINTNEXTLINE(performance-no-int-to-ptr)
      reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(at) + loss_tile_classes * sizeof(float)));
}

/// The first count (< Width) floats, minus infinity (probability 0) in the other lanes.
template <std::size_t Width>
inline vector_of<Width> load_masked(const float* from, std::size_t count) {
  float lanes[Width];
  for (std::size_t i = 0; i < Width; ++i) lanes[i] = i < count ? from[i] : -std::numeric_limits<float>::infinity();
  return load<Width>(lanes);
}

/// Calls step(i, vector, vector...) for each vector of the given arrays of `count` floats, the tail masked.
template <std::size_t Width, class Step, class... Arrays>
inline void for_each_vector(std::size_t count, const Step& step, Arrays... arrays) {
  std::size_t i = 0;
  for (; i + Width <= count; i += Width) step(i, load<Width>(arrays + i)...);
  if (i < count) step(i, load_masked<Width>(arrays + i, count - i)...);
}

/// The first position of `value` among `count` floats; 0 where it does not occur.
template <std::size_t Width>
inline std::size_t first_position(const float* from, std::size_t count, float value) {
  constexpr std::size_t group = 8 * Width;
  std::size_t i = 0;
  const vector_of<Width> wanted = splat<Width>(value);
  for (; i + group <= count; i += group) {
    integers_of<Width> found = {};
    for (std::size_t j = 0; j < group; j += Width) found |= load<Width>(from + i + j) == wanted;
    if (fold_lanes<Width>(found, [](const auto& a, const auto& b) { return a | b; })) break;
  }
  for (; i < count; ++i)
    if (from[i] == value) return i;
  return 0;
}

/// Reads one tile of `count` classes, writes its exponentials and returns its sums.
template <std::size_t Width, student_exponentials Kind, bool Teacher>
inline loss_tile read_tile(const float* z, const float* t, std::size_t count, const exponential_scale& scale, float* ez,
                           float* et, float* hard) {
  using vector = vector_of<Width>;
  constexpr float lowest = std::numeric_limits<float>::lowest();
  vector z_max = splat<Width>(lowest), t_max = z_max;
  if constexpr (Teacher) {
    for_each_vector<Width>(
        count,
        [&](std::size_t, const vector& zi, const vector& ti) {
          z_max = larger(zi, z_max);
          t_max = larger(ti, t_max);
        },
        z, t);
  } else {
    for_each_vector<Width>(
        count, [&](std::size_t, const vector& zi) { z_max = larger(zi, z_max); }, z);
  }
  loss_tile tile = {};
  tile.student_max = largest_lane<Width>(z_max);
  tile.teacher_max = Teacher ? largest_lane<Width>(t_max) : lowest;

  const vector zm = splat<Width>(tile.student_max), tm = splat<Width>(tile.teacher_max);
  constexpr exponential_scale hard_scale(1.0f);
  vector z_sum = {}, hard_sum = {}, t_sum = {}, gap = {}, energy = {};
  const auto student = [&](std::size_t i, const vector& dz) {
    const vector e = exp_nonpositive<Width>(dz, scale);
    store(ez + i, e);
    z_sum += e;
    if constexpr (Kind == student_exponentials::squared) hard_sum += e * e;
    if constexpr (Kind == student_exponentials::separate) {
      const vector h = exp_nonpositive<Width>(dz, hard_scale);
      store(hard + i, h);
      hard_sum += h;
    }
  };
  if constexpr (Teacher) {
    for_each_vector<Width>(
        count,
        [&](std::size_t i, const vector& zi, const vector& ti) {
          prefetch_next_tile(z + i);
          prefetch_next_tile(t + i);
          const vector dz = zi - zm, dt = ti - tm;
          student(i, dz);
          const auto masked = dt < scale.underflow;
          const vector x = masked ? splat<Width>(scale.zero) : dt;
          const vector e = exp_clamped<Width>(x, scale);
          store(et + i, e);
          t_sum += e;
          energy += e * x;
          // The difference is taken before the division by T: equal rows then give exactly 0. It may be infinite or
          // NaN where the teacher's probability is 0, and 0 * infinity counts as 0.
          const vector difference = dt - dz;
          gap += e * (masked ? vector{} : difference);
        },
        z, t);
  } else {
    for_each_vector<Width>(
        count, [&](std::size_t i, const vector& zi) { student(i, zi - zm); }, z);
  }
  tile.student_sum = sum_of_lanes<Width>(z_sum);
  tile.hard_sum = Kind == student_exponentials::shared ? tile.student_sum : sum_of_lanes<Width>(hard_sum);
  if constexpr (Teacher) {
    tile.teacher_sum = sum_of_lanes<Width>(t_sum);
    tile.gap = sum_of_lanes<Width>(gap);
    tile.energy = sum_of_lanes<Width>(energy);
  }
  return tile;
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

/// How the exponentials of a tile make its gradient: hard * exp(z) + soft * (student * exp(z/T) - teacher * exp(t/T)).
/// One of `student` and `teacher` is 1; both are for equal rows, whose bracket is then exactly 0, fused or not.
struct gradient_factors {
  float hard, soft, student, teacher;
};

template <std::size_t Width, student_exponentials Kind, bool Teacher>
inline void write_gradient(float* d, const float* ez, const float* et, const float* hard, std::size_t count,
                           const gradient_factors& f, bool stream) {
  using vector = vector_of<Width>;
  const auto gradient = [&](std::size_t i) {
    const vector e = load<Width>(ez + i);
    vector h = e;
    if constexpr (Kind == student_exponentials::squared) h = e * e;
    if constexpr (Kind == student_exponentials::separate) h = load<Width>(hard + i);
    if constexpr (!Teacher)
      return vector(h * f.hard);
    else
      return vector(h * f.hard + (e * f.student - load<Width>(et + i) * f.teacher) * f.soft);
  };
  const auto part = [&](std::size_t i, std::size_t lanes) {
    float values[Width];
    store(values, gradient(i));
    std::copy_n(values, lanes, d + i);
  };
  std::size_t i = 0;
  if (stream) {
    // Up to the first aligned vector; a whole vector is computed, and the scratch has room behind its end for it.
    const std::size_t past = reinterpret_cast<std::uintptr_t>(d) / sizeof(float) % Width;
    const std::size_t head = std::min(count, past == 0 ? 0 : Width - past);
    if (head > 0) part(0, head);
    for (i = head; i + Width <= count; i += Width) store_streamed<Width>(d + i, gradient(i));
  } else {
    for (; i + Width <= count; i += Width) store(d + i, gradient(i));
  }
  if (i < count) part(i, count - i);
}

/// exp of a tile's maximum relative to the row's, 0 where all of the tile underflows.
inline double tile_scale(double below_max) {
  if (below_max == 0) return 1.0;
  const double scale = std::exp(below_max);
  return scale < std::numeric_limits<float>::min() ? 0.0 : scale;
}

/// One row: its terms into `out`, its gradient into d_student unless that is null or the row is at fault.
template <std::size_t Width, student_exponentials Kind, bool Teacher>
inline void loss_of_row(const loss_arguments& a, std::size_t row, const loss_row_scratch& s, loss_row& out) {
  const float* z = a.student + row * a.classes;
  const float* t = Teacher ? a.teacher + row * a.classes : nullptr;
  const exponential_scale scale(a.temperature);
  const std::size_t tiles = loss_tiles(a.classes);
  const auto size_of = [&](std::size_t i) { return std::min(loss_tile_classes, a.classes - i * loss_tile_classes); };

  float z_max = -std::numeric_limits<float>::infinity(), t_max = z_max;
  std::size_t z_class = 0, t_class = 0;
  for (std::size_t i = 0; i < tiles; ++i) {
    const std::size_t first = i * loss_tile_classes;
    const loss_tile tile = read_tile<Width, Kind, Teacher>(z + first, Teacher ? t + first : nullptr, size_of(i), scale,
                                                           s.student + first, s.teacher + first, s.hard + first);
    s.tiles[i] = tile;
    if (tile.student_max > z_max) {
      z_max = tile.student_max;
      z_class = first + first_position<Width>(z + first, size_of(i), z_max);
    }
    if (Teacher && tile.teacher_max > t_max) {
      t_max = tile.teacher_max;
      t_class = first + first_position<Width>(t + first, size_of(i), t_max);
    }
  }

  const double inverse = scale.inverse_temperature();
  double z_sum = 0, hard_sum = 0, t_sum = 0, gap = 0, energy = 0;
  for (std::size_t i = 0; i < tiles; ++i) {
    const loss_tile& tile = s.tiles[i];
    const double dz = double{tile.student_max} - z_max, dt = double{tile.teacher_max} - t_max;
    const double z_scale = tile_scale(dz * inverse);
    // fma by name: were one of these two sums contracted and the other not, equal rows would differ.
    z_sum = std::fma(z_scale, double{tile.student_sum}, z_sum);
    hard_sum += (Kind == student_exponentials::separate  ? tile_scale(dz)
                 : Kind == student_exponentials::squared ? z_scale * z_scale
                                                         : z_scale) *
                tile.hard_sum;
    if constexpr (Teacher) {
      const double t_scale = tile_scale(dt * inverse);
      t_sum = std::fma(t_scale, double{tile.teacher_sum}, t_sum);
      if (t_scale == 0) continue;  // what follows may be infinite there, and 0 * infinity counts as 0
      gap += t_scale * (tile.gap + tile.teacher_sum * (dt - dz));
      energy += t_scale * (tile.energy + tile.teacher_sum * dt);
    }
  }
  const auto label = static_cast<std::size_t>(a.labels[row]);
  out = {};
  out.cross_entropy = std::log(hard_sum) + (double{z_max} - z[label]);
  out.correct = z_class == label;
  if constexpr (Teacher) {
    out.kd = gap * inverse / t_sum - std::log(t_sum / z_sum);
    out.soft_cross_entropy = out.kd + (std::log(t_sum) - energy * inverse / t_sum);
    out.agrees = z_class == t_class;
  }
  if (!a.d_student || !out.finite()) return;

  const double rows = static_cast<double>(a.rows);
  const double ce = a.ce_weight / rows, kd = double{a.kd_weight} * a.temperature / rows;
  float* d = a.d_student + row * a.classes;
  float label_gradient = 0;
  for (std::size_t i = 0; i < tiles; ++i) {
    const std::size_t first = i * loss_tile_classes;
    const double dz = double{s.tiles[i].student_max} - z_max, dt = double{s.tiles[i].teacher_max} - t_max;
    const double z_scale = tile_scale(dz * inverse);
    const double hard_scale = (Kind == student_exponentials::separate  ? tile_scale(dz)
                               : Kind == student_exponentials::squared ? z_scale * z_scale
                                                                       : z_scale) /
                              hard_sum;
    gradient_factors f = {static_cast<float>(ce * hard_scale), 0, 0, 0};
    if constexpr (Teacher) {
      const double student = z_scale / z_sum, teacher = tile_scale(dt * inverse) / t_sum;
      if (const double larger_one = std::max(student, teacher); larger_one > 0)
        f = {f.hard, static_cast<float>(kd * larger_one), static_cast<float>(student / larger_one),
             static_cast<float>(teacher / larger_one)};
    }
    write_gradient<Width, Kind, Teacher>(d + first, s.student + first, s.teacher + first, s.hard + first, size_of(i), f,
                                         a.stream);
    if (label / loss_tile_classes == i) {
      const float ez = s.student[label];
      const float hard = Kind == student_exponentials::separate  ? s.hard[label]
                         : Kind == student_exponentials::squared ? ez * ez
                                                                 : ez;
      const float soft = Teacher ? (ez * f.student - s.teacher[label] * f.teacher) * f.soft : 0.0f;
      label_gradient = static_cast<float>(ce * (hard * hard_scale - 1.0) + soft);
    }
  }
  d[label] = label_gradient;
}

}  // namespace kd::inline KD_ABI::cpu::detail
