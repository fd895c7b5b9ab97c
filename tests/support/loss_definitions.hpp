/// The losses by the definitions of their papers in float64, independent of the code under test: no gradient is written
/// here, it is the exact derivative of the definition.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "kd/formula/losses.hpp"
#include "kd/formula/soft_cap.hpp"
#include "traced.hpp"  // by its place: benchmarks read this header too

namespace kd_test {

namespace formula = kd::formula;

/// log softmax(x / T); minus infinity for masked classes, NaN where all are.
template <class Real>
std::vector<Real> log_softmax(const std::vector<Real>& x, double T) {
  using std::exp, std::log;
  double largest = -INFINITY;
  for (const Real& v : x) largest = std::max(largest, value_of(v));
  Real sum = 0;
  std::vector<Real> out;
  for (const Real& v : x) {
    out.push_back((v - largest) / T);
    if (value_of(v) != -INFINITY) sum = sum + exp(out.back());  // NaN included
  }
  const Real log_sum = log(sum);
  for (Real& v : out) v = v - log_sum;
  return out;
}

/// A row as definitions see it. Real is double, or traced where derivatives by z are wanted.
template <class Real>
struct defined_row {
  std::vector<Real> z;
  std::vector<double> t;
  std::size_t label;
  double T, teacher_T;
  double least;  // probabilities below count as 0, with 0 log 0 = 0

  std::vector<Real> log_h, log_q;
  std::vector<double> log_p;
  std::size_t classes() const { return z.size(); }
};

namespace detail {

/// sum w (a - b), w = exp(log_w): a KL divergence where a is log_w.
template <class Real, class W, class A, class B>
Real expected_difference(const std::vector<W>& log_w, const std::vector<A>& a, const std::vector<B>& b, double least) {
  using std::exp;
  Real sum = 0;
  for (std::size_t c = 0; c < log_w.size(); ++c)
    if (!(std::exp(value_of(log_w[c])) < least)) sum = sum + exp(log_w[c]) * (a[c] - b[c]);
  return sum;
}
/// log(w p + (1 - w) q).
template <class Real>
std::vector<Real> log_mixture(const defined_row<Real>& r, double w) {
  using std::exp, std::log;
  std::vector<Real> out;
  for (std::size_t c = 0; c < r.classes(); ++c)
    out.push_back(log(w * std::exp(r.log_p[c]) + (1 - w) * exp(r.log_q[c])));
  return out;
}
template <class T>
std::vector<T> without(std::vector<T> x, std::size_t at) {
  x.erase(x.begin() + static_cast<std::ptrdiff_t>(at));
  return x;
}
inline bool is_masked(const double x) { return x == -INFINITY; }
inline bool is_masked(const traced& x) { return x.value() == -INFINITY; }
template <class T>
bool all_masked(const std::vector<T>& x) {
  return std::all_of(x.begin(), x.end(), [](const T& v) { return is_masked(v); });
}
template <class T>
bool all_equal(const std::vector<T>& x) {
  return std::all_of(x.begin(), x.end(), [&](const T& v) { return value_of(v) == value_of(x[0]); });
}

}  // namespace detail

/// value(term, row): the loss of one row, without T^2. Not finite where the loss is not. watched(row, values) as the
/// term's.
template <class Term>
struct definition;

template <>
struct definition<formula::soft_cross_entropy> {  // Hinton 2015, arXiv:1503.02531
  template <class Real>
  static Real value(const formula::soft_cross_entropy&, const defined_row<Real>& r) {
    return detail::expected_difference<Real>(r.log_p, std::vector<double>(r.classes()), r.log_q, r.least);
  }
};
template <>
struct definition<formula::forward_kl> {  // Hinton 2015, arXiv:1503.02531
  template <class Real>
  static Real value(const formula::forward_kl&, const defined_row<Real>& r) {
    return detail::expected_difference<Real>(r.log_p, r.log_p, r.log_q, r.least);
  }
  static std::vector<double> watched(const defined_row<double>& r) {
    return {definition<formula::soft_cross_entropy>::value({}, r)};
  }
};
template <>
struct definition<formula::partial_kl> {  // arXiv:2503.16870
  template <class Real>
  static Real value(const formula::partial_kl&, const defined_row<Real>& r) {
    std::vector<double> log_p;
    for (const double t : r.t) log_p.push_back(t / r.teacher_T);
    return detail::expected_difference<Real>(log_p, log_p, r.log_q, r.least);
  }
};
template <>
struct definition<formula::reverse_kl> {  // MiniLLM, arXiv:2306.08543
  template <class Real>
  static Real value(const formula::reverse_kl&, const defined_row<Real>& r) {
    return detail::expected_difference<Real>(r.log_q, r.log_q, r.log_p, r.least);
  }
};
template <>
struct definition<formula::jeffreys> {  // Jeffreys 1946
  template <class Real>
  static Real value(const formula::jeffreys&, const defined_row<Real>& r) {
    return definition<formula::forward_kl>::value({}, r) + definition<formula::reverse_kl>::value({}, r);
  }
};
template <>
struct definition<formula::jensen_shannon> {  // GKD, arXiv:2306.13649; 0 times infinity counts as 0
  template <class Real>
  static Real value(const formula::jensen_shannon& term, const defined_row<Real>& r) {
    const double beta = term.beta;
    if (beta == 0 || beta == 1)
      return detail::expected_difference<Real>(r.log_p, r.log_p, r.log_p, r.least) +
             detail::expected_difference<Real>(r.log_q, r.log_q, r.log_q, r.least);
    const auto log_m = detail::log_mixture(r, beta);
    return beta * detail::expected_difference<Real>(r.log_p, r.log_p, log_m, r.least) +
           (1 - beta) * detail::expected_difference<Real>(r.log_q, r.log_q, log_m, r.least);
  }
};
template <>
struct definition<formula::total_variation> {
  template <class Real>
  static Real value(const formula::total_variation&, const defined_row<Real>& r) {
    using std::exp, std::abs;
    Real sum = 0;
    for (std::size_t c = 0; c < r.classes(); ++c) sum = sum + 0.5 * abs(std::exp(r.log_p[c]) - exp(r.log_q[c]));
    return sum;
  }
};
template <>
struct definition<formula::alpha_divergence> {  // Cichocki and Amari 2010
  template <class Real>
  static Real value(const formula::alpha_divergence& term, const defined_row<Real>& r) {
    using std::exp;
    const double alpha = term.alpha;
    if (alpha == 1) return definition<formula::forward_kl>::value({}, r);
    if (alpha == 0) return definition<formula::reverse_kl>::value({}, r);
    Real sum = 0;
    for (std::size_t c = 0; c < r.classes(); ++c) sum = sum + exp(alpha * r.log_p[c] + (1 - alpha) * r.log_q[c]);
    return (1 - sum) / (alpha * (1 - alpha));
  }
};
template <>
struct definition<formula::skewed_kl> {  // DistiLLM, arXiv:2402.03898
  template <class Real>
  static Real value(const formula::skewed_kl& term, const defined_row<Real>& r) {
    return detail::expected_difference<Real>(r.log_p, r.log_p, detail::log_mixture(r, term.skew), r.least);
  }
};
template <>
struct definition<formula::skewed_reverse_kl> {  // DistiLLM, arXiv:2402.03898
  template <class Real>
  static Real value(const formula::skewed_reverse_kl& term, const defined_row<Real>& r) {
    return detail::expected_difference<Real>(r.log_q, r.log_q, detail::log_mixture(r, 1 - double{term.skew}), r.least);
  }
};
template <>
struct definition<formula::logit_mse> {
  template <class Real>
  static Real value(const formula::logit_mse&, const defined_row<Real>& r) {
    Real sum = 0;
    for (std::size_t c = 0; c < r.classes(); ++c) {
      const bool masked_in_both = detail::is_masked(r.z[c]) && detail::is_masked(r.t[c]);
      if (!masked_in_both) sum = sum + (r.z[c] - r.t[c]) * (r.z[c] - r.t[c]);
    }
    return sum / static_cast<double>(r.classes());
  }
};
template <>
struct definition<formula::dkd> {  // arXiv:2203.08679
  template <class Real>
  static Real value(const formula::dkd& term, const defined_row<Real>& r) {
    using std::exp, std::log;
    const auto z = detail::without(r.z, r.label);
    const auto t = detail::without(r.t, r.label);
    if (detail::all_masked(z) && detail::all_masked(t)) return 0;
    const auto log_q = log_softmax(z, r.T);
    const auto log_p = log_softmax(t, r.teacher_T);
    // log(1 - p_y) = log p_c - log p^_c for any other class: the most probable is the most exact.
    const auto other = [&](const auto& all, const auto& others, const auto& logits) {
      std::size_t at = 0;
      for (std::size_t c = 0; c < logits.size(); ++c)
        if (value_of(logits[c]) > value_of(logits[at])) at = c;
      return detail::without(all, r.label)[at] - others[at];
    };
    const std::vector<Real> target_q = {r.log_q[r.label], other(r.log_q, log_q, z)};
    const std::vector<double> target_p = {r.log_p[r.label], other(r.log_p, log_p, t)};
    return double{term.target_weight} * detail::expected_difference<Real>(target_p, target_p, target_q, r.least) +
           double{term.others_weight} * detail::expected_difference<Real>(log_p, log_p, log_q, r.least);
  }
};
template <>
struct definition<formula::dist> {  // arXiv:2205.10536; a constant has the correlation 0 with everything
  template <class Real>
  static Real value(const formula::dist&, const defined_row<Real>& r) {
    using std::exp, std::sqrt;
    const auto n = static_cast<double>(r.classes());
    std::vector<Real> q;
    std::vector<double> p;
    for (const Real& x : r.log_q) q.push_back(exp(x));
    for (const double x : r.log_p) p.push_back(std::exp(x));
    if (detail::all_equal(q) || detail::all_equal(p)) return 1;
    Real mean_q = 0;
    double mean_p = 0;
    for (const Real& x : q) mean_q = mean_q + x / n;
    for (const double x : p) mean_p += x / n;
    Real both = 0, squares_q = 0;
    double squares_p = 0;
    for (std::size_t c = 0; c < r.classes(); ++c) {
      both = both + (q[c] - mean_q) * (p[c] - mean_p);
      squares_q = squares_q + (q[c] - mean_q) * (q[c] - mean_q);
      squares_p += (p[c] - mean_p) * (p[c] - mean_p);
    }
    return 1 - both / (sqrt(squares_q) * std::sqrt(squares_p));
  }
};
template <>
struct definition<formula::standardised_kd> {  // arXiv:2403.01427
  template <class Real>
  static Real value(const formula::standardised_kd&, const defined_row<Real>& r) {
    const auto log_q = log_softmax(standardised(r.z), r.T);
    const auto log_p = log_softmax(standardised(r.t), r.teacher_T);
    return detail::expected_difference<Real>(log_p, log_p, log_q, r.least);
  }

 private:
  template <class Real>
  static std::vector<Real> standardised(const std::vector<Real>& x) {
    using std::sqrt;
    Real mean = 0, squares = 0;
    double n = 0;
    for (const Real& v : x) n += !detail::is_masked(v);
    for (const Real& v : x)
      if (!detail::is_masked(v)) mean = mean + v / n;
    for (const Real& v : x)
      if (!detail::is_masked(v)) squares = squares + (v - mean) * (v - mean);
    const Real deviation = value_of(squares) > 0 ? sqrt(squares / (n - 1)) : Real(0);
    std::vector<Real> out;
    for (const Real& v : x) out.push_back((v - mean) / (deviation + double{1e-7f}));
    return out;
  }
};
template <>
struct definition<formula::cross_entropy> {
  template <class Real>
  static Real value(const formula::cross_entropy&, const defined_row<Real>& r) {
    return Real(0) - r.log_h[r.label];
  }
};
template <>
struct definition<formula::smoothed_cross_entropy> {  // arXiv:1512.00567
  template <class Real>
  static Real value(const formula::smoothed_cross_entropy& term, const defined_row<Real>& r) {
    const double s = term.label_smoothing;
    double n = 0;
    for (const Real& z : r.z) n += !detail::is_masked(z);
    Real sum = (s - 1) * r.log_h[r.label];
    for (std::size_t c = 0; c < r.classes(); ++c)
      if (!detail::is_masked(r.z[c])) sum = sum - s / n * r.log_h[c];
    return sum;
  }
};
template <>
struct definition<formula::z_loss> {  // ST-MoE, arXiv:2202.08906
  template <class Real>
  static Real value(const formula::z_loss&, const defined_row<Real>& r) {
    std::size_t largest = 0;
    for (std::size_t c = 0; c < r.classes(); ++c)
      if (value_of(r.z[c]) > value_of(r.z[largest])) largest = c;
    const Real log_sum = r.z[largest] - r.log_h[largest];
    return log_sum * log_sum;
  }
};

/// The logits of a row as its loss sees them: c tanh(s z / c), and masks and faults as they are. Gemma 2,
/// arXiv:2408.00118.
template <class Real>
std::vector<Real> capped(const formula::soft_cap& by, std::vector<Real> x) {
  using std::tanh;
  const double cap = by.cap;
  for (Real& v : x) {
    const Real scaled = double{by.scale} * v;
    v = cap == 0 || !std::isfinite(value_of(v)) ? scaled : cap * tanh(scaled / cap);
  }
  return x;
}
template <class Loss, class Real>
std::vector<Real> student_seen(const Loss& loss, std::vector<Real> z) {
  if constexpr (Loss::caps)
    return capped(loss.student_cap, std::move(z));
  else
    return z;
}
template <class Loss>
std::vector<double> teacher_seen(const Loss& loss, std::vector<double> t) {
  if constexpr (Loss::caps)
    return capped(loss.teacher_cap, std::move(t));
  else
    return t;
}

/// What a loss must give on one row.
struct defined_loss {
  std::vector<double> values;  // of all terms, as reported: T^2 is in where the loss has it, weights are not
  double total = 0;
  std::vector<double> d_student;  // [classes]
  bool finite() const {
    return std::isfinite(total) && std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
  }
};

/// The smallest float. A class of which a float32 engine cannot know that its probability is not 0 counts as one of 0.
inline constexpr double smallest_float = 1e-45;

/// @param student, teacher [classes] floats or doubles
template <class Loss, class Logits>
defined_loss define_loss(const Loss& loss, const Logits& student, const Logits& teacher, std::size_t label,
                         double least = smallest_float) {
  const double T = Loss::softens ? loss.temperature : 1, teacher_T = Loss::softens ? loss.teacher_temperature : 1;
  const auto row_of = [&]<class Real>(std::vector<Real> z) {
    defined_row<Real> r{student_seen(loss, std::move(z)),
                        teacher_seen(loss, std::vector<double>(teacher.begin(), teacher.end())),
                        label,
                        T,
                        teacher_T,
                        least,
                        {},
                        {},
                        {}};
    r.log_h = log_softmax(r.z, 1);
    r.log_q = log_softmax(r.z, r.T);
    r.log_p = log_softmax(r.t, r.teacher_T);
    return r;
  };
  const auto scale = [&]<class Term>(const Term&) {
    return Term::side == formula::terms::softened && loss.times_temperature_squared ? T * T : 1;
  };

  defined_loss out;
  const std::vector<double> logits(student.begin(), student.end());
  const auto plain = row_of(logits);
  Loss::each([&](auto index) {
    const auto& term = loss.template term<decltype(index)::value>();
    using defined = definition<std::remove_cvref_t<decltype(term)>>;
    const double value = scale(term) * defined::value(term, plain);
    out.values.push_back(value);
    out.total += double{loss.template weight<decltype(index)::value>()} * value;
    if constexpr (requires { defined::watched(plain); })
      for (const double watched : defined::watched(plain)) out.values.push_back(scale(term) * watched);
  });
  if (!out.finite()) return out;

  std::vector<traced> z;
  for (const double x : logits) z.push_back(std::isinf(x) ? traced(x) : traced::variable(x));
  const auto row = row_of(z);  // z stays: by these numbers the derivatives are
  traced total = 0;
  Loss::each([&](auto index) {
    const auto& term = loss.template term<decltype(index)::value>();
    using defined = definition<std::remove_cvref_t<decltype(term)>>;
    total = total + double{loss.template weight<decltype(index)::value>()} * scale(term) * defined::value(term, row);
  });
  const auto d = total.derivatives();
  for (const traced& x : z) out.d_student.push_back(x.place() == 0 ? 0 : d[x.place()]);
  return out;
}

/// kd::distillation on a batch.
struct loss_definition {
  double cross_entropy = 0, kd = 0, soft_cross_entropy = 0, total = 0;  // means over the rows
  std::vector<double> d_student;                                        // [rows,classes]
};

/// ce_weight CE + kd_weight T^2 KL(p || q), and d total / d student. `teacher` may be `student` where kd_weight is 0.
inline loss_definition define_distillation(std::size_t rows, std::size_t classes, const float* student,
                                           const float* teacher, const std::int32_t* labels, double T, double kd_weight,
                                           double ce_weight) {
  const auto temperature = static_cast<float>(T);
  const formula::logit_loss loss{temperature, temperature, true,
                                 formula::weighted{static_cast<float>(kd_weight), formula::forward_kl{}},
                                 formula::weighted{static_cast<float>(ce_weight), formula::cross_entropy{}}};
  loss_definition out;
  const double n = static_cast<double>(rows);
  for (std::size_t row = 0; row < rows; ++row) {
    const auto row_of = [&](const float* x) { return std::vector<double>(x + row * classes, x + (row + 1) * classes); };
    const defined_loss one = define_loss(loss, row_of(student), row_of(teacher), static_cast<std::size_t>(labels[row]));
    out.kd += one.values[0] / n;
    out.soft_cross_entropy += one.values[1] / n;
    out.cross_entropy += one.values[2] / n;
    out.total += one.total / n;
    for (const double d : one.d_student) out.d_student.push_back(d / n);
  }
  return out;
}

}  // namespace kd_test
