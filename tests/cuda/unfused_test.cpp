#include "../../bench/cuda/unfused.hpp"

#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/device_loss.hpp"

namespace {

namespace unfused = kd_bench::unfused;
using kd_test::guarded_array;

const std::size_t all_classes[] = {1, 2, 10, 31, 32, 33, 100, 255, 256, 257, 1025};

std::vector<double> log_softmax(const std::vector<float>& x, std::size_t rows, std::size_t classes, double T) {
  std::vector<double> out;
  for (std::size_t row = 0; row < rows; ++row) {
    const auto one =
        kd_test::log_softmax(std::vector<double>(x.begin() + row * classes, x.begin() + (row + 1) * classes), T);
    out.insert(out.end(), one.begin(), one.end());
  }
  return out;
}

struct composed {
  double cross_entropy, kd;
  std::vector<float> d_student;
};

composed run_composition(const kd_test::loss_batch& b, const kd::distillation& options, bool want_gradient = true) {
  const kd::cuda::stream s;
  guarded_array<float> student(s, b.student), teacher(s, b.teacher), d(s, want_gradient ? b.student.size() : 0);
  guarded_array<std::int32_t> labels(s, b.labels);
  guarded_array<std::byte> workspace(s, unfused::distillation_workspace(b.rows, b.classes));
  guarded_array<double> terms(s, 2);
  unfused::distillation_forward_backward(s, b.rows, b.classes, student.data(), teacher.data(), labels.data(), options,
                                         want_gradient ? d.data() : nullptr, workspace.data(), terms.data());
  workspace.values();
  const auto two = terms.values();
  return {two[0], two[1], d.values()};
}

}  // namespace

TEST_CASE("cuda unfused: softmax and log softmax match float64", "[cuda][unfused]") {
  const kd::cuda::stream s;
  for (const std::size_t classes : all_classes)
    for (const std::size_t rows : {0u, 1u, 3u})
      for (const float T : {1.0f, 2.5f}) {
        CAPTURE(classes, rows, T);
        auto x = kd_test::spread_logits(rows * classes, 20, 1);
        if (rows == 3) x[classes] += 1000;  // far from the others
        const auto want = log_softmax(x, rows, classes, double{T});
        guarded_array<float> logits(s, x), log_p(s, x.size()), p(s, x.size());
        unfused::log_softmax_forward(s, rows, classes, logits.data(), T, log_p.data());
        unfused::softmax_forward(s, rows, classes, logits.data(), T, p.data());
        const auto got_log = log_p.values(), got = p.values();
        std::vector<double> want_p;
        for (const double log : want) want_p.push_back(std::exp(log));
        REQUIRE(kd_test::near(got_log, want, {.relative = 1e-6, .scale_at_least = 1}).or_nothing());
        REQUIRE(kd_test::near(got, want_p, {.absolute = 1e-9, .relative = 1e-6}).or_nothing());
      }
}

TEST_CASE("cuda unfused: backward of softmax and log softmax is the derivative of the definition", "[cuda][unfused]") {
  const kd::cuda::stream s;
  for (const std::size_t classes : {1u, 2u, 33u, 257u})
    for (const float T : {1.0f, 3.0f}) {
      CAPTURE(classes, T);
      const std::size_t rows = 2, n = rows * classes;
      const auto x = kd_test::spread_logits(n, 6, 1), d_out = kd_test::spread_logits(n, 2, 3);
      guarded_array<float> logits(s, x), d(s, d_out), out(s, n), d_log(s, n), p(s, n), d_soft(s, n);
      unfused::log_softmax_forward(s, rows, classes, logits.data(), T, out.data());
      unfused::log_softmax_backward(s, rows, classes, out.data(), d.data(), T, d_log.data());
      unfused::softmax_forward(s, rows, classes, logits.data(), T, p.data());
      unfused::softmax_backward(s, rows, classes, p.data(), d.data(), T, d_soft.data());
      const auto got_log = d_log.values(), got = d_soft.values();
      // The weighted sum of outputs that has these derivatives, at a logit moved by h: error h^2 / 6.
      const auto value = [&](std::vector<float> at, std::size_t i, float h, bool log) {
        at[i] += h;
        const auto y = log_softmax(at, rows, classes, double{T});
        double sum = 0;
        for (std::size_t k = 0; k < n; ++k) sum += double{d_out[k]} * (log ? y[k] : std::exp(y[k]));
        return sum;
      };
      for (std::size_t i = 0; i<n; i += classes> 32 ? 37 : 1)
        for (const bool log : {false, true}) {
          const float h = 1.0f / 256;
          const double actual = double{x[i] + h} - double{x[i] - h};
          const double want = (value(x, i, h, log) - value(x, i, -h, log)) / actual;
          REQUIRE(kd_test::near((log ? got_log : got)[i], want, {.absolute = 1e-4}));
        }
    }
}

TEST_CASE("cuda unfused: KL and cross entropy, forward and backward", "[cuda][unfused]") {
  const kd::cuda::stream s;
  for (const std::size_t classes : all_classes)
    for (const std::size_t rows : {1u, 3u, 300u}) {
      if (rows == 300 && classes > 10) continue;
      CAPTURE(classes, rows);
      const std::size_t n = rows * classes;
      auto b = kd_test::random_batch(rows, classes, 4);
      const auto lp = log_softmax(b.teacher, rows, classes, 1), lq = log_softmax(b.student, rows, classes, 1);
      std::vector<float> p(n), log_p(lp.begin(), lp.end()), log_q(lq.begin(), lq.end());
      for (std::size_t i = 0; i < n; ++i) p[i] = static_cast<float>(std::exp(lp[i]));
      if (classes > 1) p[0] = 0, log_p[0] = -INFINITY;  // adds 0
      double kl = 0, ce = 0;
      for (std::size_t i = 0; i < n; ++i)
        if (p[i] > 0) kl += double{p[i]} * (double{log_p[i]} - double{log_q[i]}) / static_cast<double>(rows);
      for (std::size_t row = 0; row < rows; ++row)
        ce -= double{log_q[row * classes + static_cast<std::size_t>(b.labels[row])]} / static_cast<double>(rows);
      guarded_array<float> gp(s, p), glp(s, log_p), glq(s, log_q), d_kl(s, n), d_ce(s, n);
      guarded_array<std::int32_t> labels(s, b.labels);
      guarded_array<double> values(s, rows), out(s, 2);
      unfused::kl_divergence_forward(s, rows, classes, gp.data(), glp.data(), glq.data(), 4.0, values.data(),
                                     out.data());
      unfused::cross_entropy_forward(s, rows, classes, glq.data(), labels.data(), values.data(), out.data() + 1);
      unfused::kl_divergence_backward(s, rows, classes, gp.data(), 0.5f, d_kl.data());
      unfused::cross_entropy_backward(s, rows, classes, labels.data(), 0.5f, d_ce.data());
      values.values();
      CHECK(kd_test::close(out.values()[0], 4 * kl, 1e-12));
      CHECK(kd_test::close(out.values()[1], ce, 1e-12));
      const auto got_kl = d_kl.values(), got_ce = d_ce.values();
      const float scale = 0.5f / static_cast<float>(rows);
      for (std::size_t i = 0; i < n; ++i) {
        REQUIRE(got_kl[i] == -scale * p[i]);
        const bool is_label = i % classes == static_cast<std::size_t>(b.labels[i / classes]);
        REQUIRE(got_ce[i] == (is_label ? -scale : 0.0f));
      }
    }
}

TEST_CASE("cuda unfused: the composition matches the float64 definition and the fused loss", "[cuda][unfused]") {
  for (const std::size_t classes : {2u, 10u, 100u, 1100u})
    for (const float T : {1.0f, 2.0f, 3.0f}) {
      CAPTURE(classes, T);
      const auto b = kd_test::random_batch(5, classes, 3);
      const kd::distillation options{.temperature = T, .kd_weight = 0.4f, .ce_weight = 0.7f};
      const composed got = run_composition(b, options);
      const auto want =
          kd_test::define_distillation(b.rows, b.classes, b.student.data(), b.teacher.data(), b.labels.data(),
                                       double{T}, double{options.kd_weight}, double{options.ce_weight});
      CHECK(kd_test::close(got.cross_entropy, want.cross_entropy, 1e-6));
      CHECK(kd_test::close(got.kd, want.kd, 5e-6));
      CHECK(kd_test::near(got.d_student, want.d_student, {.of_largest = 3e-6}));
      const auto fused = kd_test::run_loss<float>(b, options);
      CHECK(kd_test::close(fused["kd"] / 5, got.kd, 5e-6));
      CHECK(kd_test::near(fused.d_student, got.d_student, {.of_largest = 3e-6}));
      const composed value = run_composition(b, options, false);
      CHECK(value.kd == got.kd);
      CHECK(value.cross_entropy == got.cross_entropy);
    }
}

TEST_CASE("cuda unfused: finite edge rows", "[cuda][unfused]") {
  for (const kd_test::loss_edge_row& edge : kd_test::loss_edge_rows()) {
    if (edge.fault != kd::loss_fault_kind::none) continue;
    // Masks: minus infinity minus minus infinity is for the fused kernels.
    const auto finite = [](const std::vector<float>& row) {
      return std::all_of(row.begin(), row.end(), [](float x) { return std::isfinite(x); });
    };
    if (!finite(edge.student) || !finite(edge.teacher)) continue;
    CAPTURE(edge.name);
    const kd::distillation options{.temperature = edge.temperature};
    const auto b = kd_test::batch_around(edge, 2, 1);
    const composed got = run_composition(b, options);
    const double T = options.temperature;
    const auto want =
        kd_test::define_distillation(b.rows, b.classes, b.student.data(), b.teacher.data(), b.labels.data(), T,
                                     double{options.kd_weight}, double{options.ce_weight});
    // The unfused logarithms are floats: their rounding, relative to the largest, times T^2.
    REQUIRE(kd_test::close(got.cross_entropy, want.cross_entropy, 2e-6));
    REQUIRE(kd_test::close(got.kd, want.kd, 2e-6 + 2e-6 * T * T));
    REQUIRE(kd_test::near(got.d_student, want.d_student, {.absolute = 3e-6 * std::max(1.0, T)}));
  }
}
