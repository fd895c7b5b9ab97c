/// The three tables, ours beside the report's.
#pragma once

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "results.hpp"

namespace report {

/// Mean and sample standard deviation; no deviation for a single value.
struct statistic {
  double mean = 0, deviation = 0;
  std::size_t count = 0;
};

inline statistic statistic_of(const std::vector<double>& values) {
  statistic s;
  s.count = values.size();
  if (values.empty()) return s;
  for (const double v : values) s.mean += v / static_cast<double>(values.size());
  for (const double v : values) s.deviation += (v - s.mean) * (v - s.mean);
  s.deviation = values.size() > 1 ? std::sqrt(s.deviation / static_cast<double>(values.size() - 1)) : 0;
  return s;
}

inline std::string cell(const statistic& s, int digits) {
  if (s.count == 0) return "-";
  char text[64];
  if (s.count == 1)
    std::snprintf(text, sizeof text, "%.*f", digits, s.mean);
  else
    std::snprintf(text, sizeof text, "%.*f +- %.*f", digits, s.mean, digits, s.deviation);
  return text;
}

inline void print_table(std::FILE* out, const table& t, const results& done, bool with_published) {
  bool any = false;
  for (const table_row& row : t.rows)
    for (const result& r : done.all()) any = any || r.spec.id == row.id;
  if (!any) return;
  std::fprintf(out, "\n%.*s\n", static_cast<int>(t.title.size()), t.title.data());
  std::fprintf(out, "  %-20s %10s  %16s  %18s  %18s  %16s%s\n", "run", "parameters", "test accuracy %", "final loss",
               "cross entropy", "as the teacher %", with_published ? "   the report: acc %, loss" : "");
  for (const table_row& row : t.rows) {
    std::vector<double> accuracy, loss, ce, agreement;
    std::size_t parameters = 0;
    for (const result& r : done.all()) {
      if (r.spec.id != row.id || r.curve.empty()) continue;
      accuracy.push_back(r.test_accuracy);
      loss.push_back(r.curve.back().loss);
      ce.push_back(r.curve.back()["cross_entropy"]);
      if (r.teacher_agreement) agreement.push_back(*r.teacher_agreement);
      parameters = r.parameters;
    }
    if (accuracy.empty()) continue;
    std::fprintf(out, "  %-20.*s %10zu  %16s  %18s  %18s  %16s", static_cast<int>(row.label.size()), row.label.data(),
                 parameters, cell(statistic_of(accuracy), 2).c_str(), cell(statistic_of(loss), 4).c_str(),
                 cell(statistic_of(ce), 4).c_str(), cell(statistic_of(agreement), 2).c_str());
    if (with_published && row.said.loss)
      std::fprintf(out, "   %13.2f, %.4f", row.said.accuracy, *row.said.loss);
    else if (with_published)
      std::fprintf(out, "   %13.2f, NaN", row.said.accuracy);
    std::fprintf(out, "\n");
  }
}

}  // namespace report
