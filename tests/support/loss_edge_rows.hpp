/// The one table of edge rows: every backend of the distillation loss runs every row of it.
///
/// A defect mended on one backend lives on in the others unless all of them run the same rows. Add here, never in a
/// backend's own test.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kd/core/random.hpp"
#include "kd/loss/loss_terms.hpp"

namespace kd_test {

struct loss_edge_row {
  std::string name;
  std::vector<float> student, teacher;
  std::int32_t label;
  float temperature;
  kd::loss_fault_kind fault = kd::loss_fault_kind::none;
  std::size_t fault_class = 0;
};

/// Numbers spread over [-spread/2, spread/2).
inline std::vector<float> spread_logits(std::size_t size, float spread, std::uint32_t which) {
  std::vector<float> out(size);
  for (std::size_t i = 0; i < size; ++i)
    out[i] =
        spread *
        (kd::uniform(kd::random_at(7, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i), which)[0]) -
         0.5f);
  return out;
}

inline std::vector<loss_edge_row> loss_edge_rows() {
  using enum kd::loss_fault_kind;
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const auto with = [](std::vector<float> row, std::size_t at, float value) {
    row[at] = value;
    return row;
  };
  const auto one_hot = [](std::size_t classes, std::size_t at, float gap) {
    std::vector<float> row(classes, 0.0f);
    row[at] = gap;
    return row;
  };
  std::vector<loss_edge_row> rows = {
      {"plain", {1, 2, 3, -1}, {0.5f, 2, 1, 0}, 2, 2},
      {"one class", {3}, {-5}, 0, 2},
      {"two classes", {1, -1}, {-2, 2}, 0, 2},
      {"equal rows", {1.1f, -2.3f, 0.7f, 5.9f, 3.3f}, {1.1f, -2.3f, 0.7f, 5.9f, 3.3f}, 1, 3},
      {"rows equal up to a shift", {1, 2, 3, 4}, {-63, -62, -61, -60}, 3, 2},
      {"all classes tie", {2, 2, 2, 2, 2, 2, 2}, {-1, -1, -1, -1, -1, -1, -1}, 4, 2},
      {"two classes tie at the top", {4, 1, 4, 0}, {1, 3, 3, 0}, 2, 2},
      {"one-hot teacher at T = 1.01, the report's NaN", {0.3f, 0.1f, -0.2f}, {0, 1000, 0}, 1, 1.01f},
      {"gap of 100", {0, 100, 50}, {100, 0, 50}, 0, 1},
      {"gap of 104 T, where p leaves float", {0, 1, 2}, {0, 210, 1}, 1, 2},
      {"gap of 1e3", {0, 1000, -1000, 5}, {1000, 0, 3, -1000}, 2, 2},
      {"gap of 1e4", {0, 1e4f, -1e4f, 5}, {1e4f, 0, 3, -1e4f}, 2, 2},
      {"gap of 1e4 at T = 0.05", {0, 1e4f, 1, 5}, {1e4f, 0, 3, -1e4f}, 2, 0.05f},
      {"gap of 1e4 at T = 100", {0, 1e4f, 1, 5}, {1e4f, 0, 3, -1e4f}, 2, 100},
      {"both sides underflow in the same class", {0, -500, 1}, {0, -400, 2}, 0, 1},
      {"large common offset", {10000.5f, 10001, 9999}, {-20000, -20001, -20002}, 0, 2},
      {"T = 0.05", {0.1f, 0.2f, -0.3f, 0.9f}, {0.4f, -0.1f, 0.3f, 0.2f}, 3, 0.05f},
      {"T = 1", {0.1f, 2.2f, -0.3f, 0.9f}, {0.4f, -1.1f, 0.3f, 0.2f}, 0, 1},
      {"T = 100", {1, 20, -3, 9}, {4, -11, 30, 2}, 0, 100},
      {"masked in both", {1, -inf, 3, -inf}, {2, -inf, 1, -inf}, 2, 2},
      {"masked in the teacher alone", {1, 2, 3, 0}, {2, -inf, 1, 0}, 1, 2},
      {"all but one masked in both", {-inf, 3, -inf}, {-inf, 1, -inf}, 1, 2},
      {"masked in the student where the teacher's probability is 0 in float", {0, -inf, 1}, {0, -1e4f, 1}, 0, 2},
      {"masked in the student alone", {1, -inf, 3}, {2, 1, 1}, 2, 2, class_masked_in_student_only, 1},
      {"label masked", {1, -inf, 3}, {2, -inf, 1}, 1, 2, label_masked, 1},
      {"student all masked", {-inf, -inf, -inf}, {2, 0, 1}, 1, 2, student_all_masked},
      {"teacher all masked", {2, 0, 1}, {-inf, -inf, -inf}, 1, 2, teacher_all_masked},
      {"NaN in the student", {1, 2, nan}, {2, 0, 1}, 1, 2, student_nan, 2},
      {"NaN first in the student", {nan, 2, 1}, {2, 0, 1}, 1, 2, student_nan, 0},
      {"NaN in the teacher", {1, 2, 3}, {2, nan, 1}, 1, 2, teacher_nan, 1},
      {"NaN everywhere in the teacher", {1, 2, 3}, {nan, nan, nan}, 1, 2, teacher_nan, 0},
      {"plus infinity in the student", {1, inf, 3}, {2, 0, 1}, 0, 2, student_infinite, 1},
      {"plus infinity in the teacher", {1, 2, 3}, {2, 0, inf}, 1, 2, teacher_infinite, 2},
      {"plus infinity in all of the student", {inf, inf, inf}, {2, 0, 1}, 1, 2, student_infinite, 0},
      {"finite but too far apart for float", {3e38f, -3e38f}, {0, 1}, 0, 2, overflow},
  };
  // The same hazards where a backend cuts a row: widths just below, at and above the usual tiles.
  for (const std::size_t classes :
       {15u, 16u, 17u, 63u, 64u, 65u, 255u, 256u, 257u, 1023u, 1024u, 1025u, 2049u, 5000u}) {
    const auto which = static_cast<std::uint32_t>(classes);
    const auto label = static_cast<std::int32_t>(classes - 1);
    const std::string c = " of " + std::to_string(classes);
    const auto z = spread_logits(classes, 12, which), t = spread_logits(classes, 20, which + 1);
    rows.push_back({"random row" + c, z, t, label, 2});
    rows.push_back({"random row, T = 1," + c, z, t, 0, 1});
    rows.push_back({"random row, T = 4," + c, z, t, label / 2, 4});
    rows.push_back({"equal random rows" + c, t, t, label, 2});
    rows.push_back({"equal random rows, T = 4," + c, t, t, label, 4});
    rows.push_back({"peaks at opposite ends, gap 1e4," + c, one_hot(classes, 0, 1e4f),
                    one_hot(classes, classes - 1, 1e4f), label, 2});
    rows.push_back(
        {"peaks at opposite ends, gap 60," + c, one_hot(classes, 0, 60), one_hot(classes, classes - 1, 60), 0, 1});
    auto masked_z = z, masked_t = t;
    for (std::size_t i = 0; i + 8 < classes; ++i) masked_z[i] = masked_t[i] = -inf;
    rows.push_back({"all but the last 8 masked in both" + c, masked_z, masked_t, label, 2});
    rows.push_back({"all but the last 8 masked in the teacher" + c, z, masked_t, label, 2});
    rows.push_back({"masked in the student, a far peak leaves the teacher 0 there," + c, with(z, classes - 1, -inf),
                    one_hot(classes, 0, 1e4f), 0, 2});
    // The largest logit grows, or is met first: sums relative to the largest so far are rescaled at every step, or
    // never.
    auto rising_z = z, rising_t = t;
    for (std::size_t i = 0; i < classes; ++i) {
      const float rise = 400.0f * static_cast<float>(i) / static_cast<float>(classes);
      rising_z[i] += rise;
      rising_t[i] += rise;
    }
    rows.push_back({"rising by 400" + c, rising_z, rising_t, label, 2});
    rows.push_back({"rising by 400, equal rows," + c, rising_t, rising_t, label, 3});
    rows.push_back({"rising against falling by 400" + c, rising_z,
                    std::vector<float>(rising_t.rbegin(), rising_t.rend()), label, 4});
    rows.push_back(
        {"ties at both ends" + c, with(with(z, 0, 30), classes - 1, 30), with(with(t, 0, 30), classes - 1, 30), 0, 2});
    if (classes > 401) {
      // Next to its neighbours the teacher gives class 401 a probability, next to the row's peak none.
      std::vector<float> low(classes, -60.0f);
      rows.push_back({"masked in the student, probable but for a far peak," + c, with(z, 401, -inf),
                      with(with(low, 0, 0), 401, -110), 0, 1});
    }
    rows.push_back({"NaN of the teacher where the student is masked" + c, with(z, classes - 2, -inf),
                    with(t, classes - 2, nan), 0, 2, teacher_nan, classes - 2});
    rows.push_back({"NaN at the end" + c, with(z, classes - 1, nan), t, 0, 2, student_nan, classes - 1});
    rows.push_back({"NaN at the end of the teacher" + c, z, with(t, classes - 1, nan), 0, 2, teacher_nan, classes - 1});
    rows.push_back({"last class masked in the student alone" + c, with(z, classes - 1, -inf), t, 0, 2,
                    class_masked_in_student_only, classes - 1});
  }
  return rows;
}

}  // namespace kd_test
