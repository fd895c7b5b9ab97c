#include "kd/formula/losses.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "kd/core/random.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/loss_definitions.hpp"
#include "support/loss_edge_rows.hpp"
#include "support/loss_variants.hpp"
#include "support/scalar_engine.hpp"

namespace {

using namespace kd::formula;
using numbers = std::vector<double>;

constexpr double smallest = std::numeric_limits<double>::denorm_min();

numbers random_logits(std::size_t classes, double spread, std::uint32_t which) {
  const auto x = kd_test::spread_logits(classes, static_cast<float>(spread), which);
  return {x.begin(), x.end()};
}

/// The largest difference of two logits that are not masked, or the largest logit: what rounding is relative to.
double size_of(const numbers& z, const numbers& t) {
  numbers finite = {1};
  for (const auto* x : {&z, &t})
    std::copy_if(x->begin(), x->end(), std::back_inserter(finite), [](double v) { return std::isfinite(v); });
  return kd_test::largest_magnitude(finite);
}

/// The loss is finite where its definition is, and value and gradient are the definition's. Rounding of the logits'
/// differences over T is 1e-16 of them; standardised ones are the more so the smaller their deviation is.
template <class Loss>
void check_row(const Loss& loss, const numbers& z, const numbers& t, std::size_t label) {
  const auto want = kd_test::define_loss(loss, z, t, label, smallest);
  const auto got = kd_test::run_scalar(loss, z, t, label);
  REQUIRE(std::isfinite(got.total) == want.finite());
  if (!want.finite()) return;
  const double T = std::min(1.0f, std::min(loss.temperature, loss.teacher_temperature));
  const double size = size_of(z, t), allowed = 2e-14 * size * size / (T * T);
  const double largest_T = std::max(1.0f, loss.temperature);
  const kd_test::allowed_error of_values = {.of_largest = allowed, .scale_at_least = largest_T * largest_T};
  REQUIRE(kd_test::near(numbers{got.total}, numbers{want.total}, of_values, "total"));
  REQUIRE(kd_test::near(got.values, want.values, of_values, "values"));
  // Of correlations: probabilities differ from their mean by 1/T of themselves.
  const bool correlates = std::is_same_v<typename Loss::template term_at<0>, dist>;
  const double slack = correlates ? largest_T * largest_T : 1;
  REQUIRE(kd_test::near(got.d_student, want.d_student, {.of_largest = allowed, .scale_at_least = largest_T * slack},
                        "d_student"));
}

/// Alone and with cross entropy, with and without T^2, with one temperature and two.
template <class Term>
void check_term(const Term& term, const numbers& z, const numbers& t, std::size_t label, float T) {
  check_row(logit_loss{T, T, true, weighted{1.0f, term}}, z, t, label);
  check_row(logit_loss{T, 2 * T, false, weighted{0.75f, term}, weighted{0.5f, cross_entropy{}}}, z, t, label);
}

template <class List, class Function>
void every_variant(const Function& function) {
  List::each([&](auto term) {
    for (const auto& variant : kd_test::variants_of(term)) {
      CAPTURE(term.name);
      function(variant);
    }
  });
}

}  // namespace

TEST_CASE("losses: value and gradient are those of the definition on random rows", "[formula]") {
  const auto check = [](const auto& term) {
    std::uint32_t which = 0;
    for (const std::size_t classes : {1u, 2u, 3u, 10u, 65u})
      for (const float T : {0.05f, 0.5f, 1.0f, 2.0f, 4.0f, 100.0f}) {
        which += 2;
        CAPTURE(classes, T, which);
        check_term(term, random_logits(classes, 8, which), random_logits(classes, 14, which + 1), classes / 2, T);
      }
  };
  every_variant<divergences>(check);
  every_variant<hard_terms>(check);
}

TEST_CASE("losses: every edge row is right, or not finite where the definition is not", "[formula]") {
  const auto check = [](const auto& term) {
    for (const auto& edge : kd_test::loss_edge_rows()) {
      if (edge.student.size() > 65) continue;
      CAPTURE(edge.name);
      check_term(term, {edge.student.begin(), edge.student.end()}, {edge.teacher.begin(), edge.teacher.end()},
                 static_cast<std::size_t>(edge.label), edge.temperature);
    }
  };
  every_variant<divergences>(check);
  every_variant<hard_terms>(check);
}

TEST_CASE("losses: equal rows have a value and a gradient of exactly 0, but for cross entropies and constants",
          "[formula]") {
  every_variant<divergences>([](const auto& term) {
    if constexpr (!std::is_same_v<std::remove_cvref_t<decltype(term)>, soft_cross_entropy>)
      for (const std::size_t classes : {2u, 3u, 10u, 100u})
        for (const float T : {0.05f, 1.0f, 3.0f, 100.0f}) {
          const auto z = random_logits(classes, 12, 3);
          const auto got = kd_test::run_scalar(logit_loss{T, T, true, weighted{1.0f, term}}, z, z, 1);
          CAPTURE(classes, T, got.total);
          REQUIRE(got.total == 0.0);
          // standardised_kd takes the difference of two sums, which a compiler may round differently here.
          const bool exact = !std::is_same_v<std::remove_cvref_t<decltype(term)>, standardised_kd>;
          REQUIRE(
              kd_test::near(got.d_student, std::vector<double>(classes), {.absolute = exact ? 0 : 1e-9}, "d_student"));
        }
  });
}

TEST_CASE("losses: terms in one launch are the sum of the terms", "[formula]") {
  mixtures::each([]<class... Terms>(list<Terms...>) {
    const auto z = random_logits(12, 8, 5), t = random_logits(12, 14, 6);
    check_row(logit_loss{2.0f, 2.0f, true, weighted{0.25f, kd_test::variants_of(Terms{})[0]}...}, z, t, 7);
    check_row(logit_loss{2.0f, 4.0f, false, weighted{0.25f, kd_test::variants_of(Terms{})[0]}...}, z, t, 7);
  });
}

TEST_CASE("losses: the ends of the options are the losses that they are said to be", "[formula]") {
  const auto z = random_logits(9, 8, 15), t = random_logits(9, 14, 16);
  const auto same = [&](const auto& one, const auto& other, double factor = 1) {
    const auto a = kd_test::run_scalar(logit_loss{2.0f, 2.0f, true, weighted{1.0f, one}}, z, t, 3);
    auto b = kd_test::run_scalar(logit_loss{2.0f, 2.0f, true, weighted{1.0f, other}}, z, t, 3);
    for (double& d : b.d_student) d *= factor;
    REQUIRE(kd_test::near(a.values[0], factor * b.values[0], {.absolute = 1e-12}));
    REQUIRE(kd_test::near(a.d_student, b.d_student, {.absolute = 1e-12}, "d_student"));
  };
  same(alpha_divergence{.alpha = 1}, forward_kl{});
  same(alpha_divergence{.alpha = 0}, reverse_kl{});
  same(jensen_shannon{.beta = 0}, forward_kl{}, 0);
  same(jensen_shannon{.beta = 1}, forward_kl{}, 0);
  same(skewed_kl{.skew = 1}, forward_kl{}, 0);
  same(skewed_reverse_kl{.skew = 1}, forward_kl{}, 0);
  same(smoothed_cross_entropy{.label_smoothing = 0}, cross_entropy{});
}
