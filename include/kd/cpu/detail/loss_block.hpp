/// The logit losses on rows of few classes: one row per vector lane.
///
/// The rows of a block are transposed into [classes][Width], so that every step (maxima, exponentials, logarithms)
/// works on whole vectors however few the classes, and no sum across lanes is needed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kd/core/abi.hpp"
#include "kd/cpu/detail/logit_formats.hpp"
#include "kd/cpu/detail/loss_call.hpp"
#include "kd/cpu/detail/loss_math.hpp"
#include "kd/cpu/exponential.hpp"
#include "kd/cpu/simd.hpp"

namespace kd::inline KD_ABI::cpu::detail {

/// Rows of at most this many classes go lane by lane. On a Zen 5 with AVX-512 one by one they take 2.4 times as long at
/// 65 classes, 1.3 at 128, the same at 256, and 0.85 at 512, where a block no longer fits the L1 cache.
inline constexpr std::size_t loss_block_classes = 256;
/// Classes whose exponentials are summed from zero on: sums of 256 floats one after the other would be wrong by 1e-6.
inline constexpr std::size_t loss_block_run = 64;

/// Calls tile(l, c) for squares of Side lanes and classes that cover Width lanes and `count` >= Side classes; the last
/// ones overlap those before them where Side does not divide the count.
template <std::size_t Width, std::size_t Side, class Tile>
[[gnu::always_inline]] inline void for_each_square(std::size_t count, const Tile& tile) {
  for (std::size_t l = 0; l < Width; l += Side)
    for (std::size_t c = 0;; c = std::min(c + Side, count - Side)) {
      tile(l, c);
      if (c + Side == count) break;
    }
}

/// to[c * Width + l] = rows[l][c] for c < count. Not inline, like its inverse: every loss would compile copies of both.
template <std::size_t Width, std::size_t Side = Width, class T>
[[gnu::noinline]] void rows_to_lanes(const T* const (&rows)[Width], std::size_t count, float* to) {
  if constexpr (Side >= 4) {
    if (count < Side) return rows_to_lanes<Width, Side / 2>(rows, count, to);
    for_each_square<Width, Side>(
        count, [&](std::size_t l, std::size_t c) __attribute__((always_inline)) {
          vector_of<Side> square[Side];
          KD_UNROLL(16)
          for (std::size_t i = 0; i < Side; ++i) square[i] = load<Side>(rows[l + i] + c);
          transpose_steps<Side, 1>(square);
          KD_UNROLL(16)
          for (std::size_t i = 0; i < Side; ++i) store(to + (c + i) * Width + l, square[i]);
        });
  } else {
    for (std::size_t l = 0; l < Width; ++l)
      for (std::size_t c = 0; c < count; ++c) to[c * Width + l] = to_float(rows[l][c]);
  }
}

/// rows[l][c] = from[c * Width + l], or more by it, for c < count; rows that are null are left alone.
template <std::size_t Width, std::size_t Side = Width, class T>
[[gnu::noinline]] void lanes_to_rows(const float* from, std::size_t count, bool add, T* const (&rows)[Width]) {
  if constexpr (Side >= 4) {
    if (count < Side || add) return lanes_to_rows<Width, Side / 2>(from, count, add, rows);
    for_each_square<Width, Side>(
        count, [&](std::size_t l, std::size_t c) __attribute__((always_inline)) {
          vector_of<Side> square[Side];
          KD_UNROLL(16)
          for (std::size_t i = 0; i < Side; ++i) load(square[i], from + (c + i) * Width + l);
          transpose_steps<Side, 1>(square);
          KD_UNROLL(16)
          for (std::size_t i = 0; i < Side; ++i)
            if (rows[l + i]) store_logits<Side>(rows[l + i] + c, square[i]);
        });
  } else {
    for (std::size_t l = 0; l < Width; ++l)
      for (std::size_t c = 0; rows[l] && c < count; ++c)
        rows[l][c] = from_float<T>(add ? to_float(rows[l][c]) + from[c * Width + l] : from[c * Width + l]);
  }
}

/// The spread of each lane's logits, whose largest is given.
template <std::size_t Width>
inline formula::logit_spread<vector_of<Width>> spread_of(const float* logits, const vector_of<Width>& max,
                                                         std::size_t classes) {
  using vector = vector_of<Width>;
  vector count = {}, sum = {}, squares = {};
  for (std::size_t c = 0; c < classes; ++c) {
    const vector x = load<Width>(logits + c * Width);
    const auto masked = formula::is_masked(x);
    count += masked ? splat<Width>(0) : splat<Width>(1);
    sum += masked ? splat<Width>(0) : x - max;
  }
  const vector mean = sum / count;
  for (std::size_t c = 0; c < classes; ++c) {
    const vector x = load<Width>(logits + c * Width), off = x - max - mean;
    squares += formula::is_masked(x) ? splat<Width>(0) : off * off;
  }
  return {mean, squares > 0.0f ? loss_math::sqrt(vector(squares / (count - 1.0f))) : splat<Width>(0), count, max};
}

/// The temperature of a block's exponentials: one, or, where the loss standardises, one of each row.
template <class Loss, std::size_t Width>
inline auto scale_of(const exponential_scale& of_call, float temperature,
                     const formula::logit_spread<vector_of<Width>>& spread) {
  if constexpr (Loss::standardises)
    return exponential_scales<Width>(temperature * (spread.deviation + formula::least_deviation));
  else
    return of_call;
}
template <std::size_t Width>
inline vector_of<Width> inverse_temperature(const exponential_scale& scale) {
  return splat<Width>(static_cast<float>(scale.inverse_temperature()));
}
template <std::size_t Width>
inline vector_of<Width> inverse_temperature(const exponential_scales<Width>& scale) {
  return scale.log2e_over_t * 0.693147181f;
}

template <class Loss, class Vector>
[[gnu::always_inline]] inline void add_sums(formula::sums<Loss, Vector>& to, const formula::sums<Loss, Vector>& more) {
  to.student += more.student;
  to.teacher += more.teacher;
  to.hard += more.hard;
  for (std::size_t i = 0; i != Loss::moments.size; ++i) to.moments.at[i] += more.moments.at[i];
  for (std::size_t i = 0; i != Loss::logit_sums; ++i) to.logits.at[i] += more.logits.at[i];
}

/// The rows rows[first..first + count), count <= Width: values into out[0..count), gradients unless the call wants
/// none, none for rows at fault.
template <std::size_t Width, student_exponentials Kind, class Call>
inline void loss_of_block(const Call& a, const counted_rows& rows, std::size_t first, std::size_t count,
                          loss_row<typename Call::Loss>* out) {
  using Loss = typename Call::Loss;
  using vector = vector_of<Width>;
  using integers = integers_of<Width>;
  constexpr bool teacher = Loss::needs_teacher, teacher_softens = Call::teacher_softens;
  constexpr bool keeps_logits = Call::reads_logits;
  constexpr bool sums_exponentials = Loss::softens || Loss::hardens;
  constexpr std::size_t room = loss_block_classes * Width;
  constexpr float infinity = std::numeric_limits<float>::infinity();
  alignas(64) float z[room];
  alignas(64) float t[teacher ? room : 1];
  alignas(64) float hard[Kind == student_exponentials::separate ? room : 1];
  alignas(64) float z_kept[keeps_logits ? room : 1], t_kept[keeps_logits && teacher ? room : 1];
  const Loss& loss = a.loss;
  const std::size_t classes = a.classes();
  if (classes == 0) __builtin_unreachable();  // checked by the caller; else g++ 12 warns that z may be uninitialised
  // Lanes beyond `count` repeat the last row, so that they hold finite work.
  const auto row_of = [&](std::size_t l) { return rows[first + std::min(l, count - 1)]; };
  const typename Call::Student* z_rows[Width];
  KD_UNROLL(1)  // of every loop over rows: their addresses take much code
  for (std::size_t l = 0; l < Width; ++l) z_rows[l] = a.student(row_of(l));
  rows_to_lanes<Width>(z_rows, classes, z);
  if constexpr (teacher) {
    const typename Call::Teacher* t_rows[Width];
    KD_UNROLL(1)
    for (std::size_t l = 0; l < Width; ++l) t_rows[l] = a.teacher(row_of(l));
    const std::size_t known = std::min(classes, a.teacher_classes());
    rows_to_lanes<Width>(t_rows, known, t);
    std::fill(t + known * Width, t + classes * Width, -infinity);
  }
  alignas(64) float slope[Loss::caps ? room : 1];
  if constexpr (Loss::caps)
    for (std::size_t i = 0; i < classes * Width; i += Width) {
      const vector zi = load<Width>(z + i);
      store(slope + i, a.student_slope(zi));
      store(z + i, a.student_logit(zi));
      if constexpr (teacher) store(t + i, a.teacher_logit(vector(load<Width>(t + i))));
    }
  std::size_t label[Width] = {};
  vector z_label = {}, t_label = {};
  if (a.has_labels()) {
    alignas(64) float z_lanes[Width], t_lanes[Width] = {};
    KD_UNROLL(1)
    for (std::size_t l = 0; l < Width; ++l) {
      label[l] = a.label(row_of(l));
      z_lanes[l] = z[label[l] * Width + l];
      if constexpr (teacher && Loss::label_apart) t_lanes[l] = t[label[l] * Width + l];
    }
    z_label = load<Width>(z_lanes);
    t_label = load<Width>(t_lanes);
  }
  if constexpr (Loss::label_apart)
    for (std::size_t l = 0; l < Width; ++l) {
      z[label[l] * Width + l] = -infinity;
      if constexpr (teacher) t[label[l] * Width + l] = -infinity;
    }

  vector z_max = splat<Width>(std::numeric_limits<float>::lowest()), t_max = z_max;
  integers z_class = {}, t_class = {};
  for (std::size_t c = 0; c < classes; ++c) {
    const integers index = static_cast<std::int32_t>(c) + integers{};
    const vector zc = load<Width>(z + c * Width);
    z_class = zc > z_max ? index : z_class;
    z_max = larger(zc, z_max);
    if constexpr (teacher) {
      const vector tc = load<Width>(t + c * Width);
      t_class = tc > t_max ? index : t_class;
      t_max = larger(tc, t_max);
    }
  }

  formula::logit_spread<vector> spread = {}, teacher_spread = {};
  if constexpr (Loss::standardises) {
    spread = spread_of<Width>(z, z_max, classes);
    teacher_spread = spread_of<Width>(t, t_max, classes);
  }
  const auto scale = scale_of<Loss, Width>(a.scale, a.temperature(), spread);
  const auto teacher_scale = scale_of<Loss, Width>(a.teacher_scale, a.teacher_temperature(), teacher_spread);
  constexpr exponential_scale hard_scale(1.0f);
  const vector inverse = inverse_temperature<Width>(scale), teacher_inverse = inverse_temperature<Width>(teacher_scale);
  const vector T_ratio = vector{} + teacher_scale.log2e_over_t / scale.log2e_over_t;  // exactly 1 where T is T'
  formula::sums<Loss, vector> s;
  for (std::size_t begin = 0; begin < classes; begin += loss_block_run) {
    formula::sums<Loss, vector> run;
    for (std::size_t c = begin, end = std::min(begin + loss_block_run, classes); c < end; ++c) {
      const vector zc = load<Width>(z + c * Width);
      vector tc = {};
      if constexpr (teacher) tc = load<Width>(t + c * Width);
      if constexpr (keeps_logits) {
        store(z_kept + c * Width, zc);
        if constexpr (teacher) store(t_kept + c * Width, tc);
      }
      if constexpr (Loss::logit_sums > 0) {
        one_class<vector> one = {};
        one.student_logit = zc;
        one.teacher_logit = tc;
        formula::add_logits(loss, one, run.logits);
      }
      if constexpr (sums_exponentials) {
        const vector dz = zc - z_max;
        const auto z_masked = dz < scale.underflow;
        const vector zx = z_masked ? scale.zero + vector{} : dz;
        const vector ez = exp_clamped<Width>(zx, scale);
        store(z + c * Width, ez);
        run.student += ez;
        if constexpr (Loss::hardens && Kind == student_exponentials::squared) run.hard += ez * ez;
        if constexpr (Kind == student_exponentials::separate) {
          const vector h = exp_nonpositive<Width>(dz, hard_scale);
          store(hard + c * Width, h);
          run.hard += h;
        }
        if constexpr (teacher_softens) {
          const vector dt = tc - t_max;
          const auto t_masked = dt < teacher_scale.underflow;
          const vector tx = t_masked ? teacher_scale.zero + vector{} : dt;
          const vector et = exp_clamped<Width>(tx, teacher_scale);
          store(t + c * Width, et);
          run.teacher += et;
          // The gap is taken before the division by T: equal rows then give exactly 0.
          formula::add_moments<Loss>(run.moments, ez, et, zx, tx, vector(dt * T_ratio - dz), z_masked, t_masked);
        } else {
          formula::add_moments<Loss>(run.moments, ez, ez, zx, zx, splat<Width>(0), z_masked, z_masked);
        }
      }
    }
    add_sums(s, run);
  }
  if constexpr (Kind == student_exponentials::shared) s.hard = s.student;
  if constexpr (!teacher_softens) s.teacher = s.student;
  if constexpr (!Loss::label_apart) {  // a side without a class has no probabilities
    const vector nan = splat<Width>(std::numeric_limits<float>::quiet_NaN());
    s.student = s.student > 0.0f ? s.student : nan;
    s.teacher = s.teacher > 0.0f ? s.teacher : nan;
    s.hard = s.hard > 0.0f ? s.hard : nan;
  }

  // Without the label apart, `others_scale` is 1 and `hard_max` is z_max.
  vector hard_max = z_max, others_scale = splat<Width>(1), label_hard = {};
  if constexpr (Loss::label_apart) {
    integers index;
    for (std::size_t l = 0; l < Width; ++l) index[l] = static_cast<std::int32_t>(label[l]);
    z_class = ((z_label > z_max) | ((z_label == z_max) & (index < z_class))) ? index : z_class;
    t_class = ((t_label > t_max) | ((t_label == t_max) & (index < t_class))) ? index : t_class;
    hard_max = larger(z_label, z_max);
    others_scale = exp_nonpositive<Width>(z_max - hard_max, hard_scale);
    label_hard = exp_nonpositive<Width>(z_label - hard_max, hard_scale);
    s.hard = s.hard * others_scale + label_hard;
    if constexpr (Loss::logit_sums > 0) {
      one_class<vector> one = {};
      one.student_logit = z_label;
      one.teacher_logit = t_label;
      formula::add_logits(loss, one, s.logits);
    }
  }
  vector hard_log = {};
  if constexpr (Loss::hardens) hard_log = log_positive<Width>(s.hard);
  auto r = formula::rows_of<loss_math>(loss, s, inverse, teacher_inverse, t_max, vector(hard_log + hard_max),
                                       splat<Width>(static_cast<float>(classes)), vector((z_label - z_max) * inverse),
                                       vector((t_label - t_max) * teacher_inverse), spread);

  vector unit = 1.0f / s.student, ratio = s.student / s.teacher;  // the ratio is exactly 1 for equal rows
  if constexpr (Loss::label_apart) {
    unit = s.student == 0.0f ? splat<Width>(0) : unit;  // no class but the label
    ratio = s.teacher == 0.0f ? splat<Width>(0) : ratio;
  }
  const auto class_at = [&](std::size_t c) {
    one_class<vector> one = {};
    one.unit = unit;
    if constexpr (sums_exponentials) one.student = load<Width>(z + c * Width);
    if constexpr (Loss::hardens) {
      if constexpr (Kind == student_exponentials::shared) one.hard = one.student;
      if constexpr (Kind == student_exponentials::squared) one.hard = one.student * one.student;
      if constexpr (Kind == student_exponentials::separate) one.hard = load<Width>(hard + c * Width);
    }
    if constexpr (teacher_softens) {
      one.teacher = load<Width>(t + c * Width) * ratio;
      one.difference = one.student - one.teacher;
    }
    if constexpr (Call::reads_gap) {
      const vector gap =
          (load<Width>(t_kept + c * Width) - t_max) * T_ratio - (load<Width>(z_kept + c * Width) - z_max);
      const vector log_gap = r.template at<0>().log_ratio - gap * inverse;
      one.log_gap = one.student > 0.0f ? log_gap : splat<Width>(0);
      one.teacher_log_gap = one.teacher > 0.0f ? log_gap : splat<Width>(0);
    }
    if constexpr (keeps_logits) {
      one.student_logit = load<Width>(z_kept + c * Width);
      if constexpr (teacher) one.teacher_logit = load<Width>(t_kept + c * Width);
    }
    return one;
  };
  if constexpr (Loss::probability_sums > 0) {
    formula::few<vector, Loss::probability_sums> sums = {};
    for (std::size_t c = 0; c < classes; ++c) {
      one_class<vector> one = class_at(c);
      one.student *= unit;
      one.teacher *= unit;
      one.difference *= unit;
      one.unit = splat<Width>(1);
      formula::add_probabilities(loss, r, one, sums);
    }
    formula::take_probabilities(loss, sums, r);
  }

  vector values[Loss::values] = {};
  soft_values(loss, r, values);
  for (std::size_t l = 0; l < count; ++l) {
    loss_row<Loss>& row = out[l];
    for (std::size_t i = 0; i < Loss::values; ++i) row.values[i] = values[i][l];
    if constexpr (Loss::hardens)
      hard_values(
          loss, hard_log[l], hard_max[l], z_label[l], static_cast<double>(classes),
          [&](std::size_t i) { return double{s.logits.at[i][l]}; }, row.values);
    row.correct = a.has_labels() && static_cast<std::size_t>(z_class[l]) == label[l];
    row.agrees = teacher && z_class[l] == t_class[l];
    finish_values(loss, row);
  }
  if (!a.batch.gradient.data) return;

  alignas(64) float weight_lanes[Width];
  KD_UNROLL(1)
  for (std::size_t l = 0; l < Width; ++l) weight_lanes[l] = a.gradient_weight(row_of(l));
  const vector row_weight = load<Width>(weight_lanes);
  const vector hard_unit = 1.0f / s.hard;
  vector weights[Loss::size], factors[Loss::size];
  Loss::each([&](auto index) {
    constexpr std::size_t i = decltype(index)::value;
    constexpr formula::terms side = Loss::template term_at<i>::side;
    factors[i] = weights[i] = a.template gradient_weight<i, float>() * row_weight;
    if constexpr (side == formula::terms::softened && !Loss::label_apart) factors[i] /= s.student;
    if constexpr (side == formula::terms::softened && Loss::label_apart) factors[i] *= unit;
    if constexpr (side == formula::terms::hard) factors[i] /= s.hard;
  });
  for (std::size_t c = 0; c < classes; ++c) {
    one_class<vector> one = class_at(c);
    if constexpr (Loss::label_apart) one.hard *= others_scale;
    one.hard_unit = hard_unit;
    store(z + c * Width, formula::gradient_of(loss, r, one, factors));
  }
  if constexpr (Loss::label_apart) {
    one_class<vector> one = {};
    one.hard = label_hard;
    one.hard_unit = hard_unit;
    one.student_logit = z_label;
    one.teacher_logit = t_label;
    const vector d = formula::gradient_of_label(loss, r, one, factors, weights);
    for (std::size_t l = 0; l < count; ++l) z[label[l] * Width + l] = d[l];
  }
  const float less = less_at_label(a);
  typename Call::Gradient* d_rows[Width] = {};
  KD_UNROLL(1)
  for (std::size_t l = 0; l < count; ++l) {
    if (!out[l].finite) continue;
    if (Loss::needs_label) z[label[l] * Width + l] -= less * weight_lanes[l];
    d_rows[l] = a.gradient(rows[first + l]);
  }
  if constexpr (Loss::caps)
    for (std::size_t i = 0; i < classes * Width; i += Width)
      store(z + i, vector(load<Width>(z + i) * load<Width>(slope + i)));
  lanes_to_rows<Width>(z, classes, a.how == writing::added, d_rows);
}

}  // namespace kd::inline KD_ABI::cpu::detail
