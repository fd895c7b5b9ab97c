/// The smallest engine: one row in float64, one class after the other. It shows how the words of logit_loss.hpp meet.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "kd/formula/logit_row.hpp"
#include "kd/formula/soft_cap.hpp"

namespace kd_test {

struct scalar_loss {
  std::vector<double> values;  // as defined_loss
  double total = 0;
  std::vector<double> d_student;
};

struct scalar_math {
  static double log(double x) { return std::log(x); }
  static double log1p(double x) { return std::log1p(x); }
  static double exp(double x) { return std::exp(x); }
  static double abs(double x) { return std::abs(x); }
  static double sqrt(double x) { return std::sqrt(x); }
  static double tanh(double x) { return std::tanh(x); }
};

inline double largest_of(const std::vector<double>& x) { return *std::max_element(x.begin(), x.end()); }

inline kd::formula::logit_spread<double> spread_of(const std::vector<double>& x) {
  kd::formula::logit_spread<double> s{};
  double squares = 0;
  for (const double v : x) s.count += !std::isinf(v);
  for (const double v : x) s.mean += std::isinf(v) ? 0 : v / s.count;
  for (const double v : x) squares += std::isinf(v) ? 0 : (v - s.mean) * (v - s.mean);
  s.deviation = squares > 0 ? std::sqrt(squares / (s.count - 1)) : 0;
  return s;
}

template <class Loss>
scalar_loss run_scalar(const Loss& loss, const std::vector<double>& student, const std::vector<double>& teacher,
                       std::size_t label) {
  using namespace kd::formula;
  const std::size_t classes = student.size();
  std::vector<double> z, t;
  for (const double x : student) z.push_back(student_logit<scalar_math>(loss, x));
  for (const double x : teacher) t.push_back(teacher_logit<scalar_math>(loss, x));
  double T = Loss::softens ? loss.temperature : 1, teacher_T = Loss::softens ? loss.teacher_temperature : 1;
  logit_spread<double> spread{};
  if constexpr (Loss::standardises) {
    spread = spread_of(z);
    T *= spread.deviation + double{least_deviation};
    teacher_T *= spread_of(t).deviation + double{least_deviation};
  }
  // loss.value_scale() and gradient_scale() without their rounding to float.
  const double value_scale = loss.times_temperature_squared ? std::pow(double{loss.temperature}, 2) : 1;
  const double gradient_scale = value_scale / loss.temperature;
  const double inverse_T = 1 / T, inverse_teacher_T = 1 / teacher_T, ratio = T / teacher_T;

  // The rows as their softened sums see them.
  auto soft_z = z, soft_t = t;
  if constexpr (Loss::label_apart) soft_z[label] = soft_t[label] = -INFINITY;
  const double max_z = largest_of(soft_z), max_t = largest_of(soft_t), max_hard = largest_of(z);
  const auto below = [](double x, double max) { return x == -INFINITY ? 0 : x - max; };  // finite where masked
  const auto weight = [](double x, double max, double by) { return x == -INFINITY ? 0 : std::exp((x - max) * by); };
  const auto gap = [&](std::size_t c) {
    return (soft_t[c] == -INFINITY ? -INFINITY : soft_t[c] - max_t) * ratio -
           (soft_z[c] == -INFINITY ? -INFINITY : soft_z[c] - max_z);
  };

  sums<Loss, double> s{};
  const auto class_of = [&](std::size_t c) {
    one_class<double> k{};
    k.student_logit = z[c];
    k.teacher_logit = t[c];
    k.student = weight(soft_z[c], max_z, inverse_T);
    k.teacher = weight(soft_t[c], max_t, inverse_teacher_T);
    k.hard = std::exp(z[c] - max_hard);
    return k;
  };
  for (std::size_t c = 0; c < classes; ++c) {
    const auto k = class_of(c);
    s.student += k.student;
    s.teacher += k.teacher;
    s.hard += k.hard;
    add_moments<Loss>(s.moments, k.student, k.teacher, below(soft_z[c], max_z), below(soft_t[c], max_t), gap(c),
                      k.student == 0, k.teacher == 0);
    add_logits(loss, k, s.logits);
  }
  auto r = rows_of<scalar_math>(loss, s, inverse_T, inverse_teacher_T, max_t, std::log(s.hard) + max_hard,
                                static_cast<double>(classes), (z[label] - max_z) * inverse_T,
                                (t[label] - max_t) * inverse_teacher_T, spread);
  // Where all classes of a side are masked these are no numbers, and neither is the loss: but not for want of others
  // than the label.
  const bool none = Loss::label_apart && s.student == 0, none_of_teacher = Loss::label_apart && s.teacher == 0;
  const double unit = none ? 0 : 1 / s.student, all_teacher = none_of_teacher ? 0 : s.student / s.teacher;
  const double log_ratio = std::log(s.teacher / s.student);
  const auto whole_class_of = [&](std::size_t c) {
    auto k = class_of(c);
    k.teacher *= all_teacher;
    k.difference = k.student - k.teacher;
    k.unit = unit;
    k.hard_unit = 1 / s.hard;
    k.log_gap = k.student == 0 ? 0 : log_ratio - gap(c) * inverse_T;
    k.teacher_log_gap = k.teacher == 0 ? 0 : log_ratio - gap(c) * inverse_T;
    return k;
  };
  few<double, Loss::probability_sums> probability_sums = {};
  for (std::size_t c = 0; c < classes; ++c) add_probabilities(loss, r, whole_class_of(c), probability_sums);
  take_probabilities(loss, probability_sums, r);

  scalar_loss out;
  double factors[Loss::size], d_label = -double{weight_at_label(loss)};
  Loss::each([&](auto index) {
    constexpr std::size_t i = decltype(index)::value;
    using term = typename Loss::template term_at<i>;
    const auto& row = r.template at<i>();
    const double w = loss.template weight<i>();
    const double scale = term::side == terms::softened ? value_scale : 1;
    double value;
    if constexpr (term::side == terms::hard) {
      hard_row<kd::formula::detail::logit_sums_of<term>()> hard{std::log(s.hard), max_hard, z[label], row.classes,
                                                                row.logit_sums};
      value = loss.template term<i>().value(hard);
    } else {
      value = row.value * scale;
    }
    out.values.push_back(value);
    out.total += w * value;
    if constexpr (requires { term::watched; }) {
      double watched[std::size(term::watched)];
      loss.template term<i>().watch(row, watched);
      for (const double x : watched) out.values.push_back(x * scale);
    }
    factors[i] = term::side == terms::softened ? w * gradient_scale * unit : term::side == terms::hard ? w / s.hard : w;
    if constexpr (kd::formula::detail::label_apart_of<term>())
      d_label += w * gradient_scale * loss.template term<i>().gradient_of_label(row);
  });
  for (std::size_t c = 0; c < classes; ++c) out.d_student.push_back(gradient_of(loss, r, whole_class_of(c), factors));
  out.d_student[label] += d_label;
  for (std::size_t c = 0; c < classes; ++c) out.d_student[c] *= student_slope<scalar_math>(loss, student[c]);
  return out;
}

}  // namespace kd_test
