/// One suite for every engine of the losses on logits: each runs each loss over the one table of edge rows, and over
/// random rows that must have the losses' properties. What must come out is the definition's, faults included.
///
/// An engine is a type with
///   name                    "cpu, 16 lanes"
///   takes(classes)          whether it is made for rows of that many
///   rounded(x)              a logit as the engine's format holds it
///   slack                   what multiplies tolerances: 1, or more for an engine that adds up one by one
///   gradient_rounding       relative, of the gradient's format
///   most_classes_of_batches up to how many classes rows of a batch share anything
///   most_rows               of a random batch
///   run(formula, rows)      an engine_outcome
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kd/formula/losses.hpp"
#include "kd/loss/loss_terms.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/loss_definitions.hpp"
#include "support/loss_edge_rows.hpp"
#include "support/loss_rounding.hpp"
#include "support/loss_variants.hpp"

namespace kd_test {

/// Logits [rows,classes], labels [rows].
struct logit_rows {
  std::size_t rows = 0, classes = 0;
  std::vector<float> student, teacher;
  std::vector<std::int32_t> labels;

  std::vector<float> row_of(const std::vector<float>& logits, std::size_t row) const {
    const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(row * classes);
    return {begin, begin + static_cast<std::ptrdiff_t>(classes)};
  }
};

/// Means over the rows, or the first fault.
struct engine_outcome {
  std::vector<double> values;
  double total = 0;
  kd::loss_fault fault;
  std::vector<float> d_student;  // [rows,classes]
};

inline logit_rows random_rows(std::size_t rows, std::size_t classes, std::uint32_t which, float student_spread = 8,
                              float teacher_spread = 14) {
  logit_rows b{rows,
               classes,
               spread_logits(rows * classes, student_spread, which),
               spread_logits(rows * classes, teacher_spread, which + 1),
               {}};
  for (std::size_t row = 0; row < rows; ++row) b.labels.push_back(static_cast<std::int32_t>(row * 31 % classes));
  return b;
}

template <class Engine>
std::vector<float> rounded_by(std::vector<float> x) {
  for (float& v : x) v = Engine::rounded(v);
  return x;
}

/// What is wrong with a row whose loss is not finite, in the order in which engines look.
template <class Loss>
kd::loss_fault fault_of(const std::vector<float>& z, const std::vector<float>& t, std::size_t row, std::size_t label) {
  using enum kd::loss_fault_kind;
  const auto scan = [&](const std::vector<float>& x, kd::loss_fault_kind nan, kd::loss_fault_kind infinite,
                        kd::loss_fault_kind masked) {
    for (std::size_t c = 0; c < x.size(); ++c) {
      if (std::isnan(x[c])) return kd::loss_fault{nan, row, c};
      if (x[c] == INFINITY) return kd::loss_fault{infinite, row, c};
    }
    return kd::loss_fault{detail::all_masked(std::vector<double>(x.begin(), x.end())) ? masked : none, row, 0};
  };
  if (const auto fault = scan(z, student_nan, student_infinite, student_all_masked); fault.kind != none) return fault;
  if (Loss::needs_teacher)
    if (const auto fault = scan(t, teacher_nan, teacher_infinite, teacher_all_masked); fault.kind != none) return fault;
  if (Loss::needs_label && z[label] == -INFINITY) return {label_masked, row, label};
  // Of the classes masked on one side alone the likeliest of the other.
  const auto masked_alone = [&](const std::vector<float>& in, const std::vector<float>& other) {
    std::size_t at = in.size();
    for (std::size_t c = 0; c < in.size(); ++c)
      if (in[c] == -INFINITY && other[c] != -INFINITY && (at == in.size() || other[c] > other[at])) at = c;
    return at;
  };
  if (Loss::needs_teacher && Loss::infinite_where_student_is_0)
    if (const std::size_t at = masked_alone(z, t); at < z.size()) return {class_masked_in_student_only, row, at};
  if (Loss::needs_teacher && Loss::infinite_where_teacher_is_0)
    if (const std::size_t at = masked_alone(t, z); at < z.size()) return {class_masked_in_teacher_only, row, at};
  return {overflow, row, 0};
}

/// The engine's values and gradient are the definition's on the logits as it holds them, or its fault is the row's.
/// `overflows`: logits so far apart that the engine may report overflow instead.
template <class Engine, class Loss>
void check_rows(const Loss& loss, const logit_rows& rows, bool overflows = false) {
  const engine_outcome got = Engine::run(loss, rows);
  const double n = static_cast<double>(rows.rows);
  std::vector<double> values(Loss::values), d_student;
  double total = 0, of_value = 0, of_gradient = 0;
  for (std::size_t row = 0; row < rows.rows; ++row) {
    const auto z = rounded_by<Engine>(rows.row_of(rows.student, row)),
               t = rounded_by<Engine>(rows.row_of(rows.teacher, row));
    const auto label = static_cast<std::size_t>(rows.labels[row]);
    const defined_loss want = define_loss(loss, z, t, label);
    if (overflows && got.fault.kind == kd::loss_fault_kind::overflow) return;
    if (!want.finite()) {
      // A probability that is no normal float is 0 for some engines: whether a mask hides it is theirs to say.
      if (define_loss(loss, z, t, label, std::numeric_limits<float>::min()).finite()) return;
      const kd::loss_fault fault = fault_of<Loss>(z, t, row, label);
      REQUIRE(kd::text_of(got.fault) == kd::text_of(fault));
      return;
    }
    for (std::size_t i = 0; i < Loss::values; ++i) values[i] += want.values[i] / n;
    total += want.total / n;
    for (const double d : want.d_student) d_student.push_back(d / n);
    const loss_rounding rounding = rounding_of(loss, {z.begin(), z.end()}, {t.begin(), t.end()});
    of_value = std::max(of_value, Engine::slack * rounding.value);
    of_gradient = std::max(of_gradient, Engine::slack * rounding.gradient);
  }
  REQUIRE(kd::text_of(got.fault) == kd::text_of(kd::loss_fault{}));
  comparison each("values");
  for (std::size_t i = 0; i < Loss::values; ++i)
    each.add(got.values[i], values[i], of_value * std::max(1.0, std::abs(values[i])));
  REQUIRE(each);
  REQUIRE(close(got.total, total, of_value * loss_weights(loss)));
  if (overflows && n * largest_magnitude(d_student) > std::numeric_limits<float>::max()) return;
  REQUIRE(near(got.d_student, d_student, {.absolute = of_gradient / n, .relative = Engine::gradient_rounding},
               "d_student"));
}

/// The loss with cross entropy, or alone.
template <class Term>
auto with_cross_entropy(const Term& term, float T, float teacher_T, bool squared = true) {
  namespace f = kd::formula;
  return f::logit_loss{T, teacher_T, squared, f::weighted{0.5f, term}, f::weighted{0.5f, f::cross_entropy{}}};
}
template <class Term>
auto alone(const Term& term, float T) {
  return kd::formula::logit_loss{T, T, true, kd::formula::weighted{1.0f, term}};
}

/// Every edge row, alone and as the fourth of a batch of plain ones. `loss_at`(T) is the loss.
template <class Engine, class LossAt>
void check_edge_rows(const LossAt& loss_at) {
  for (const loss_edge_row& edge : loss_edge_rows()) {
    const std::size_t classes = edge.student.size();
    if (!Engine::takes(classes)) continue;
    CAPTURE(Engine::name, edge.name);
    const bool overflows = edge.fault == kd::loss_fault_kind::overflow;
    check_rows<Engine>(loss_at(edge.temperature), {1, classes, edge.student, edge.teacher, {edge.label}}, overflows);
    if (classes > Engine::most_classes_of_batches) continue;
    logit_rows among = random_rows(std::clamp<std::size_t>(Engine::most_rows, 4, 20), classes, 11);
    const auto place = static_cast<std::ptrdiff_t>(3 * classes);
    std::copy(edge.student.begin(), edge.student.end(), among.student.begin() + place);
    std::copy(edge.teacher.begin(), edge.teacher.end(), among.teacher.begin() + place);
    among.labels[3] = edge.label;
    check_rows<Engine>(loss_at(edge.temperature), among, overflows);
  }
}

/// Random shapes, with two temperatures and without T^2. `loss_at`(T, T', whether with T^2) is the loss.
template <class Engine, class LossAt>
void check_random_rows(const LossAt& loss_at) {
  for (std::uint32_t seed = 1; seed <= 12; ++seed) {
    const auto draw = kd::random_at(seed, kd::random_stream::synthetic_data, 0, 0);
    const std::size_t classes = 1 + draw[0] % (seed % 4 == 0 ? 3000 : 80), rows = 1 + draw[1] % Engine::most_rows;
    if (!Engine::takes(classes)) continue;
    const float T = 0.5f + static_cast<float>(draw[2] % 8) / 2, teacher_T = seed % 3 == 0 ? 2 * T : T;
    CAPTURE(Engine::name, seed, rows, classes, T, teacher_T);
    check_rows<Engine>(loss_at(T, teacher_T, seed % 2 == 0), random_rows(rows, classes, seed));
  }
}

/// What holds of a divergence whatever its formula: it is not negative, is 0 for equal rows, its gradient's rows sum to
/// 0, and neither student nor teacher may be shifted into another value.
template <class Engine, class Term>
void check_properties(const Term& term) {
  namespace f = kd::formula;
  constexpr bool entropy = std::is_same_v<Term, f::soft_cross_entropy>, logits = Term::side == f::terms::logits;
  for (std::uint32_t seed = 21; seed <= 28; ++seed) {
    const auto draw = kd::random_at(seed, kd::random_stream::synthetic_data, 0, 0);
    const std::size_t classes = 2 + draw[0] % (seed % 4 == 0 ? 2000 : 70),
                      rows = 1 + draw[1] % std::min<std::size_t>(Engine::most_rows, 20);
    if (!Engine::takes(classes)) continue;
    const float T = 0.5f + static_cast<float>(draw[2] % 8) / 2;
    CAPTURE(Engine::name, seed, rows, classes, T);
    const auto loss = alone(term, T);
    logit_rows b = random_rows(rows, classes, seed);
    b.student = rounded_by<Engine>(b.student);
    b.teacher = rounded_by<Engine>(b.teacher);
    const engine_outcome got = Engine::run(loss, b);
    loss_rounding rounding;
    for (std::size_t row = 0; row < rows; ++row) {
      const auto z = b.row_of(b.student, row), t = b.row_of(b.teacher, row);
      const loss_rounding one = rounding_of(loss, {z.begin(), z.end()}, {t.begin(), t.end()});
      rounding = {std::max(rounding.value, one.value), std::max(rounding.gradient, one.gradient)};
    }
    const double of_value = Engine::slack * rounding.value, of_gradient = Engine::slack * rounding.gradient;
    REQUIRE(got.total >= -of_value);
    if (!logits) {
      comparison sums("the gradient's sums");
      for (std::size_t row = 0; row < rows; ++row) {
        double sum = 0, size = 0;
        for (const float d : b.row_of(got.d_student, row)) sum += d, size += std::abs(d);
        sums.add(sum, 0, of_gradient + (1e-6 + Engine::gradient_rounding) * size);
      }
      REQUIRE(sums);
      // A power of two beyond all logits would round them; 16 is exact for most, and 1e-6 for the rest.
      logit_rows shifted = b;
      for (float& z : shifted.student) z += 16;
      for (float& t : shifted.teacher) t -= 16;
      if (Engine::rounded(1.0f / 1024 + 16) == 1.0f / 1024 + 16)
        REQUIRE(close(Engine::run(loss, shifted).total, got.total, 40 * of_value));
    }
    logit_rows equal = b;
    equal.teacher = equal.student;
    const engine_outcome none = Engine::run(loss, equal);
    if (!entropy) REQUIRE(none.total == 0.0);
    for (const float d : none.d_student) REQUIRE(d == 0.0f);
    if constexpr (std::is_same_v<Term, f::jensen_shannon> || std::is_same_v<Term, f::total_variation> ||
                  std::is_same_v<Term, f::jeffreys>) {
      logit_rows swapped = b;
      std::swap(swapped.student, swapped.teacher);
      REQUIRE(close(Engine::run(loss, swapped).total, got.total, 2 * of_value));
    }
  }
}

/// Calls check(term) for every Parts-th loss of a list, from `Part` on, with its usual options.
template <class List, std::size_t Part, std::size_t Parts, class Check>
void every_loss(const Check& check) {
  []<class... Terms>(kd::formula::list<Terms...>, const Check& function) {
    const auto one = [&]<std::size_t I, class Term>(std::integral_constant<std::size_t, I>, const Term& usual) {
      if constexpr (I % Parts == Part) {
        const auto term = variants_of(usual).front();
        CAPTURE(Term::name);
        function(term);
      }
    };
    [&]<std::size_t... I>(std::index_sequence<I...>) { (one(std::integral_constant<std::size_t, I>{}, Terms{}), ...); }
    (std::index_sequence_for<Terms...>{});
  }(List{}, check);
}

/// The whole suite of a part of the divergences.
template <class Engine, std::size_t Part, std::size_t Parts>
void check_divergences() {
  every_loss<kd::formula::divergences, Part, Parts>([](const auto& term) {
    const auto loss_at = [&](float T, float teacher_T, bool squared) {
      return with_cross_entropy(term, T, teacher_T, squared);
    };
    check_edge_rows<Engine>([&](float T) { return loss_at(T, T, true); });
    check_random_rows<Engine>(loss_at);
    check_properties<Engine>(term);
  });
}
/// The hard terms, and sums of several terms.
template <class Engine>
void check_hard_terms() {
  every_loss<kd::formula::hard_terms, 0, 1>([](const auto& term) {
    check_edge_rows<Engine>([&](float T) { return alone(term, T); });
    check_random_rows<Engine>([&](float T, float, bool) { return alone(term, T); });
  });
}
template <class Engine>
void check_mixtures() {
  kd::formula::mixtures::each([]<class... Terms>(kd::formula::list<Terms...>) {
    const auto loss_at = [](float T, float teacher_T, bool squared) {
      return kd::formula::logit_loss{T, teacher_T, squared,
                                     kd::formula::weighted{0.5f, variants_of(Terms{}).front()}...};
    };
    check_edge_rows<Engine>([&](float T) { return loss_at(T, T, true); });
    check_random_rows<Engine>(loss_at);
  });
}

/// Losses of logits that are scaled and capped: each way in which an engine is asked for something.
template <class Engine>
void check_caps() {
  namespace f = kd::formula;
  every_loss<f::list<f::forward_kl, f::jensen_shannon, f::logit_mse, f::dkd, f::standardised_kd>, 0, 1>(
      [](const auto& term) {
        const auto loss_at = [&](float T, float teacher_T, bool squared) {
          return f::capped_loss{with_cross_entropy(term, T, teacher_T, squared), f::soft_cap{.scale = 0.75f, .cap = 5},
                                f::soft_cap{.scale = 2, .cap = squared ? 30.0f : 0.0f}};
        };
        check_edge_rows<Engine>([&](float T) { return loss_at(T, T, true); });
        check_random_rows<Engine>(loss_at);
      });
}

/// partial_kl, of log-probabilities that sum to less than 1, some of which are masked.
template <class Engine>
void check_log_probabilities() {
  for (const std::size_t classes : {1u, 2u, 7u, 33u, 100u, 2500u}) {
    if (!Engine::takes(classes)) continue;
    logit_rows b = random_rows(std::min<std::size_t>(Engine::most_rows, 5), classes, 5);
    for (std::size_t row = 0; row < b.rows; ++row) {
      const auto t = b.row_of(b.teacher, row);
      const auto log_p = log_softmax(std::vector<double>(t.begin(), t.end()), 1);
      for (std::size_t c = 0; c < classes; ++c)
        b.teacher[row * classes + c] =
            c > 1 && c % 3 == 0 ? -INFINITY : static_cast<float>(log_p[c] - 0.25 * double(row));
    }
    for (const float T : {0.5f, 1.0f, 4.0f}) {
      CAPTURE(Engine::name, classes, T);
      check_rows<Engine>(with_cross_entropy(kd::formula::partial_kl{}, T, 1), b);
    }
  }
}

}  // namespace kd_test
