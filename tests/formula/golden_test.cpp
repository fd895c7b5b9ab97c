#include <cstddef>
#include <vector>

#include "golden/loss_golden.hpp"
#include "kd/formula/losses.hpp"
#include "kd/formula/partial_kl.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/loss_definitions.hpp"
#include "support/scalar_engine.hpp"

namespace {

using namespace kd::formula;
using kd_golden::loss_classes, kd_golden::loss_rows, kd_golden::loss_temperature;
using numbers = std::vector<double>;

/// Formula and definition both give PyTorch's mean and gradient. Both sides round in float64; 1e-7 is a float in
/// standardised_kd, the largest of the differences.
template <class Loss>
void check_loss(const Loss& loss, const kd_golden::loss_golden& want) {
  double formula = 0, definition = 0;
  numbers d_formula, d_definition;
  for (std::size_t row = 0; row < loss_rows; ++row) {
    const auto of = [&](const double* x) { return numbers(x + row * loss_classes, x + (row + 1) * loss_classes); };
    const numbers z = of(kd_golden::loss_student), t = of(kd_golden::loss_teacher);
    const auto got = kd_test::run_scalar(loss, z, t, kd_golden::loss_labels[row]);
    const auto defined = kd_test::define_loss(loss, z, t, kd_golden::loss_labels[row]);
    formula += got.total / loss_rows;
    definition += defined.total / loss_rows;
    for (const double d : got.d_student) d_formula.push_back(d / loss_rows);
    for (const double d : defined.d_student) d_definition.push_back(d / loss_rows);
  }
  CHECK(kd_test::near(formula, want.value, {.relative = 1e-13, .scale_at_least = 1}, "value"));
  CHECK(kd_test::near(definition, want.value, {.relative = 1e-13, .scale_at_least = 1}, "value by definition"));
  CHECK(kd_test::near(d_formula, want.d_student, {.absolute = 1e-13}, "d_student"));
  CHECK(kd_test::near(d_definition, want.d_student, {.absolute = 1e-13}, "d_student by definition"));
}

template <class Term>
void check(const Term& term, const kd_golden::loss_golden& want, float teacher_T = loss_temperature,
           bool squared = true) {
  CAPTURE(Term::name);
  check_loss(logit_loss{loss_temperature, teacher_T, squared, weighted{1.0f, term}}, want);
}

}  // namespace

TEST_CASE("losses: values and gradients are PyTorch's", "[formula][golden]") {
  check(forward_kl{}, kd_golden::forward_kl);
  check(forward_kl{}, kd_golden::forward_kl_two_temperatures, 4, false);
  check_loss(logit_loss{loss_temperature, 1.0f, true, weighted{1.0f / 1024, partial_kl{}}}, kd_golden::partial_kl);
  check(reverse_kl{}, kd_golden::reverse_kl);
  check(jeffreys{}, kd_golden::jeffreys);
  check(jensen_shannon{.beta = 0.5f}, kd_golden::jensen_shannon);
  check(jensen_shannon{.beta = 0.25f}, kd_golden::jensen_shannon_quarter);
  check(total_variation{}, kd_golden::total_variation);
  check(alpha_divergence{.alpha = 0.5f}, kd_golden::alpha_divergence);
  check(alpha_divergence{.alpha = 0.25f}, kd_golden::alpha_divergence_quarter);
  check(skewed_kl{.skew = 0.125f}, kd_golden::skewed_kl);
  check(skewed_reverse_kl{.skew = 0.125f}, kd_golden::skewed_reverse_kl);
  check(soft_cross_entropy{}, kd_golden::soft_cross_entropy);
  check(logit_mse{}, kd_golden::logit_mse);
  check(dkd{}, kd_golden::dkd);
  check(dist{}, kd_golden::dist);
  check(standardised_kd{}, kd_golden::standardised_kd);
  check(cross_entropy{}, kd_golden::cross_entropy);
  check(smoothed_cross_entropy{.label_smoothing = 0.125f}, kd_golden::smoothed_cross_entropy);
  check(z_loss{}, kd_golden::z_loss);
  check_loss(capped_loss{logit_loss{loss_temperature, loss_temperature, true, weighted{0.5f, forward_kl{}},
                                    weighted{0.5f, cross_entropy{}}},
                         soft_cap{.scale = 0.75f, .cap = 3}, soft_cap{.cap = 4}},
             kd_golden::soft_capped);
}
