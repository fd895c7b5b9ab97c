#include "kd/loss/unfused.hpp"

#include <cstdint>
#include <functional>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/loss_definition.hpp"
#include "support/loss_edge_rows.hpp"

namespace {

constexpr std::size_t rows = 3, classes = 5, size = rows * classes;

/// Central differences of a scalar function of a float array.
std::vector<double> numeric_gradient(std::vector<float> at, const std::function<double(const std::vector<float>&)>& f) {
  std::vector<double> out(at.size());
  for (std::size_t i = 0; i < at.size(); ++i) {
    const float x = at[i], h = 1.0f / 128;
    at[i] = x + h;
    const double above = f(at);
    at[i] = x - h;
    out[i] = (above - f(at)) / (2.0 * h);
    at[i] = x;
  }
  return out;
}

// Central differences with step h = 2^-7 of float functions: rounding 1e-7 / h = 1e-5, curvature h^2 = 6e-5.
constexpr kd_test::allowed_error numeric_tolerance{.of_largest = 3e-4};

}  // namespace

TEST_CASE("unfused: softmax and log_softmax have the numeric gradients, from non-zero buffers", "[loss][unfused]") {
  const auto logits = kd_test::spread_logits(size, 6, 1), weights = kd_test::spread_logits(size, 2, 2);
  for (const float T : {0.5f, 1.0f, 3.0f}) {
    const auto weighted = [&](auto forward) {
      return [&weights, forward, T](const std::vector<float>& x) {
        std::vector<float> out(size, 9.0f);
        forward(rows, classes, x.data(), T, out.data());
        double sum = 0;
        for (std::size_t i = 0; i < size; ++i) sum += double{weights[i]} * out[i];
        return sum;
      };
    };
    std::vector<float> out(size), d(size, 7.0f);
    kd::unfused::softmax_forward(rows, classes, logits.data(), T, out.data());
    kd::unfused::softmax_backward(rows, classes, out.data(), weights.data(), T, d.data());
    REQUIRE(kd_test::near(d, numeric_gradient(logits, weighted(kd::unfused::softmax_forward)), numeric_tolerance));
    kd::unfused::log_softmax_forward(rows, classes, logits.data(), T, out.data());
    kd::unfused::log_softmax_backward(rows, classes, out.data(), weights.data(), T, d.data());
    REQUIRE(kd_test::near(d, numeric_gradient(logits, weighted(kd::unfused::log_softmax_forward)), numeric_tolerance));
  }
}

TEST_CASE("unfused: kl_divergence and cross_entropy have the numeric gradients, mean over rows", "[loss][unfused]") {
  const auto log_q = kd_test::spread_logits(size, 4, 3), logits = kd_test::spread_logits(size, 4, 4);
  std::vector<float> p(size), log_p(size), d(size, 7.0f);
  kd::unfused::softmax_forward(rows, classes, logits.data(), 1, p.data());
  kd::unfused::log_softmax_forward(rows, classes, logits.data(), 1, log_p.data());
  kd::unfused::kl_divergence_backward(rows, classes, p.data(), 3.0f, d.data());
  const auto divergence = [&](const std::vector<float>& x) {
    return 3 * kd::unfused::kl_divergence_forward(rows, classes, p.data(), log_p.data(), x.data());
  };
  REQUIRE(kd_test::near(d, numeric_gradient(log_q, divergence), numeric_tolerance));
  const std::int32_t labels[rows] = {4, 0, 2};
  kd::unfused::cross_entropy_backward(rows, classes, labels, 3.0f, d.data());
  const auto cross_entropy = [&](const std::vector<float>& x) {
    return 3 * kd::unfused::cross_entropy_forward(rows, classes, x.data(), labels);
  };
  REQUIRE(kd_test::near(d, numeric_gradient(log_q, cross_entropy), numeric_tolerance));
}

TEST_CASE("unfused: the composition matches the float64 definition", "[loss][unfused]") {
  const auto student = kd_test::spread_logits(size, 8, 5), teacher = kd_test::spread_logits(size, 12, 6);
  const std::int32_t labels[rows] = {1, 4, 0};
  std::vector<float> workspace(kd::unfused::distillation_workspace(rows, classes)), d(size, 7.0f);
  for (const float T : {1.0f, 2.0f, 4.0f}) {
    const kd::distillation options{.temperature = T, .kd_weight = 0.6f, .ce_weight = 0.4f};
    const auto got = kd::unfused::distillation_forward_backward(rows, classes, student.data(), teacher.data(), labels,
                                                                options, d.data(), workspace.data());
    const auto want = kd_test::define_distillation(rows, classes, student.data(), teacher.data(), labels, T,
                                                   double{options.kd_weight}, double{options.ce_weight});
    // float logarithms of probabilities, a few 1e-7 each, times T^2 <= 16.
    REQUIRE(kd_test::close(got.cross_entropy, want.cross_entropy, 1e-6));
    REQUIRE(kd_test::close(got.kd, want.kd, 1e-5));
    REQUIRE(kd_test::close(got.soft_cross_entropy, want.soft_cross_entropy, 1e-5));
    REQUIRE(kd_test::close(got.total, want.total, 1e-5));
    REQUIRE(kd_test::near(d, want.d_student, {.of_largest = 1e-6}));
  }
}
