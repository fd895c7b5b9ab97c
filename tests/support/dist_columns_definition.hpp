/// DIST's relation between samples in float64, its derivative by every logit: independent of the code under test.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/loss_edge_rows.hpp"
#include "support/traced.hpp"

namespace kd_test {

struct columns_batch {
  std::size_t rows, classes;
  std::vector<float> student, teacher;
};
inline columns_batch random_columns(std::size_t rows, std::size_t classes, std::uint32_t which = 3) {
  return {rows, classes, spread_logits(rows * classes, 6, which), spread_logits(rows * classes, 9, which + 1)};
}

struct columns_definition {
  double value = 0;
  double narrowness = 0;  // the largest mean of a column over its deviation, by which rounding grows
  std::vector<double> d_student;
};

/// The paper's equation (8), in float64, its derivative by every logit.
inline columns_definition define_columns(const columns_batch& b, double T, double teacher_T, double factor) {
  std::vector<traced> z, q, p;
  for (const float x : b.student) z.push_back(traced::variable(double{x}));
  const auto soften = [&](auto&& logit, double temperature, std::vector<traced>& to) {
    for (std::size_t row = 0; row < b.rows; ++row) {
      double max = -INFINITY;
      for (std::size_t c = 0; c < b.classes; ++c) max = std::max(max, traced(logit(row, c)).value());
      std::vector<traced> e;
      traced sum = 0;
      for (std::size_t c = 0; c < b.classes; ++c) {
        const traced x = logit(row, c);
        e.push_back(std::isinf(x.value()) ? traced(0) : exp((x - max) / temperature));
        sum = sum + e.back();
      }
      for (const traced& one : e) to.push_back(one / sum);
    }
  };
  soften([&](std::size_t row, std::size_t c) { return z[row * b.classes + c]; }, T, q);
  soften([&](std::size_t row, std::size_t c) { return traced(double{b.teacher[row * b.classes + c]}); }, teacher_T, p);
  traced total = 0;
  double narrowness = 0;
  const double n = static_cast<double>(b.rows);
  for (std::size_t c = 0; c < b.classes; ++c) {
    traced q_mean = 0, p_mean = 0, qq = 0, pp = 0, qp = 0;
    for (std::size_t row = 0; row < b.rows; ++row)
      q_mean = q_mean + q[row * b.classes + c] / n, p_mean = p_mean + p[row * b.classes + c] / n;
    for (std::size_t row = 0; row < b.rows; ++row) {
      const traced dq = q[row * b.classes + c] - q_mean, dp = p[row * b.classes + c] - p_mean;
      qq = qq + dq * dq, pp = pp + dp * dp, qp = qp + dq * dp;
    }
    const bool related = qq.value() > 1e-20 && pp.value() > 1e-20;
    if (related)
      narrowness = std::max(
          {narrowness, q_mean.value() / std::sqrt(qq.value() / n), p_mean.value() / std::sqrt(pp.value() / n)});
    total = total + (related ? traced(1) - qp / sqrt(qq * pp) : traced(1));
  }
  total = total * (factor / static_cast<double>(b.classes));
  columns_definition out{total.value(), narrowness, {}};
  const std::vector<double> d = total.derivatives();
  for (const traced& x : z) out.d_student.push_back(d[x.place()]);
  return out;
}

}  // namespace kd_test
