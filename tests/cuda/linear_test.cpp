/// Linear layers on the GPU against their float64 definition. Under the emulation kd's wrapper of cuBLASLt runs on a
/// stand-in of its C interface, which checks every descriptor.
#include "kd/cuda/linear.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "kd/cuda/graph.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded_array.hpp"
#include "support/message.hpp"

namespace {

using kd::precision;
using kd::cuda::cublaslt;
using kd::cuda::stream;
using kd_test::guarded_array;
using kd_test::near;
using kd_test::normal_values;
using floats = kd_test::guarded_array<float>;

/// Rounding a factor to 8 (tf32: 11) bits moves it by 2^-9 (2^-12) at most, a product by twice that; sums of K of them
/// move by less than sqrt(K) times as much while results grow alike. fp32: K * 2^-24, K at most 300.
double tolerance(precision p) { return p == precision::fp32 ? 5e-6 : p == precision::tf32 ? 2e-3 : 1.6e-2; }

struct layer {
  std::size_t in, out, batch;
  std::vector<float> x, w, bias, dy, dx_before;

  layer(std::size_t in_, std::size_t out_, std::size_t batch_)
      : in(in_),
        out(out_),
        batch(batch_),
        x(normal_values(batch * in, 1)),
        w(normal_values(out * in, 2)),
        bias(normal_values(out, 3)),
        dy(normal_values(batch * out, 4)),
        dx_before(normal_values(batch * in, 5)) {}

  std::vector<double> y(bool with_bias, bool relu) const {
    std::vector<double> all(batch * out);
    for (std::size_t n = 0; n < batch; ++n)
      for (std::size_t o = 0; o < out; ++o) {
        double sum = with_bias ? double{bias[o]} : 0;
        for (std::size_t i = 0; i < in; ++i) sum += double{x[n * in + i]} * double{w[o * in + i]};
        all[n * out + o] = relu ? std::max(sum, 0.0) : sum;
      }
    return all;
  }
  std::vector<double> dx(bool accumulate) const {
    std::vector<double> all(batch * in);
    for (std::size_t n = 0; n < batch; ++n)
      for (std::size_t i = 0; i < in; ++i) {
        double sum = accumulate ? double{dx_before[n * in + i]} : 0;
        for (std::size_t o = 0; o < out; ++o) sum += double{dy[n * out + o]} * double{w[o * in + i]};
        all[n * in + i] = sum;
      }
    return all;
  }
  std::vector<double> dw() const {
    std::vector<double> all(out * in);
    for (std::size_t n = 0; n < batch; ++n)
      for (std::size_t o = 0; o < out; ++o)
        for (std::size_t i = 0; i < in; ++i) all[o * in + i] += double{dy[n * out + o]} * double{x[n * in + i]};
    return all;
  }
  std::vector<double> db() const {
    std::vector<double> all(out);
    for (std::size_t n = 0; n < batch; ++n)
      for (std::size_t o = 0; o < out; ++o) all[o] += double{dy[n * out + o]};
    return all;
  }
};

/// All passes, from arrays that begin `shift` floats beyond 16 bytes, but for x.
void check_all(const stream& s, cublaslt& library, const layer& l, std::size_t shift, double bound) {
  INFO("in " << l.in << ", out " << l.out << ", batch " << l.batch << ", shift " << shift);
  floats x(s, l.x), w(s, l.w, shift), bias(s, l.bias, shift), dy(s, l.dy, shift);
  for (const bool with_bias : {false, true})
    for (const bool relu : {false, true}) {
      floats y(s, l.batch * l.out, shift);
      kd::cuda::linear_forward(s, library, l.in, l.out, l.batch, x.data(), w.data(), with_bias ? bias.data() : nullptr,
                               relu, y.data());
      CHECK(near(y.floats(), l.y(with_bias, relu), {.of_largest = bound}));
      CHECK(y.intact());
    }
  floats dx(s, l.batch * l.in, shift), dx_added(s, l.dx_before, shift);
  kd::cuda::linear_backward_data(s, library, l.in, l.out, l.batch, dy.data(), w.data(), false, dx.data(), nullptr);
  kd::cuda::linear_backward_data(s, library, l.in, l.out, l.batch, dy.data(), w.data(), true, dx_added.data(), nullptr);
  CHECK(near(dx.floats(), l.dx(false), {.of_largest = bound}));
  CHECK(near(dx_added.floats(), l.dx(true), {.of_largest = bound}));
  CHECK((dx.intact() && dx_added.intact()));
  for (const bool with_bias : {false, true}) {
    floats dw(s, l.out * l.in, shift), db(s, l.out, shift);
    kd::cuda::linear_backward_weight(s, library, l.in, l.out, l.batch, x.data(), dy.data(), dw.data(),
                                     with_bias ? db.data() : nullptr, nullptr);
    CHECK(near(dw.floats(), l.dw(), {.of_largest = bound}));
    if (with_bias) CHECK(near(db.floats(), l.db(), {.of_largest = bound}));
    CHECK((dw.intact() && db.intact()));
  }
}

}  // namespace

TEST_CASE("cuda linear: forward and gradients match the float64 definition", "[cuda][linear]") {
  const stream s;
  const precision p = GENERATE(precision::fp32, precision::tf32, precision::bf16);
  INFO(kd::text_of(p));
  cublaslt library(p);
  for (const auto& [in, out] :
       std::vector<std::pair<std::size_t, std::size_t>>{{1, 1}, {7, 5}, {16, 10}, {33, 17}, {64, 12}, {300, 31}})
    for (const std::size_t batch : {1u, 3u, 64u, 131u}) {
      // Of a few results the largest may be a small difference of large products, which rounded factors do not give.
      if (p != precision::fp32 && in * out < 100) continue;
      const layer l(in, out, batch);
      check_all(s, library, l, 0, tolerance(p));
      if (batch == 3) check_all(s, library, l, 1, tolerance(p));
    }
}

TEST_CASE("cuda linear: fp32 does not round its factors", "[cuda][linear]") {
  const stream s;
  cublaslt library(precision::fp32);
  // 1 + 2^-12 is 1 in tf32 and in bf16.
  const std::size_t in = 64, out = 8, batch = 16;
  floats x(s, std::vector<float>(batch * in, 1 + 0x1p-12f)), w(s, std::vector<float>(out * in, 1.0f)),
      y(s, batch * out);
  kd::cuda::linear_forward(s, library, in, out, batch, x.data(), w.data(), nullptr, false, y.data());
  CHECK(y.floats() == std::vector<float>(batch * out, 64 + 0x1p-6f));
}

TEST_CASE("cuda linear: a NaN passes relu", "[cuda][linear]") {
  const stream s;
  cublaslt library(precision::fp32);
  const std::size_t in = 4, out = 3, batch = 2;
  std::vector<float> weights(out * in, 1.0f);
  weights[in] = std::numeric_limits<float>::quiet_NaN();  // of the second output
  floats x(s, std::vector<float>(batch * in, 1.0f)), w(s, weights), y(s, batch * out);
  for (const bool with_bias : {false, true}) {
    floats bias(s, std::vector<float>(out, -5.0f));
    kd::cuda::linear_forward(s, library, in, out, batch, x.data(), w.data(), with_bias ? bias.data() : nullptr, true,
                             y.data());
    const auto got = y.floats();
    for (std::size_t n = 0; n < batch; ++n) {
      CHECK(std::isnan(got[n * out + 1]));
      CHECK(got[n * out] == (with_bias ? 0.0f : 4.0f));
    }
  }
}

TEST_CASE("cuda linear: an empty batch has no gradient", "[cuda][linear]") {
  const stream s;
  cublaslt library(precision::fp32);
  floats dw(s, 15), db(s, 3), y(s, 1);
  kd::cuda::linear_forward(s, library, 5, 3, 0, nullptr, nullptr, nullptr, true, y.data());
  kd::cuda::linear_backward_data(s, library, 5, 3, 0, nullptr, nullptr, false, y.data(), nullptr);
  kd::cuda::linear_backward_weight(s, library, 5, 3, 0, nullptr, nullptr, dw.data(), db.data(), nullptr);
  CHECK(dw.floats() == std::vector<float>(15, 0.0f));
  CHECK(db.floats() == std::vector<float>(3, 0.0f));
  CHECK(std::isnan(y.floats()[0]));
  CHECK(library.plans() == 0);
}

TEST_CASE("cuda linear: an algorithm is chosen once for each problem", "[cuda][linear]") {
  const stream s;
  cublaslt library(precision::fp32);
  const layer l(24, 10, 6);
  check_all(s, library, l, 0, tolerance(precision::fp32));
  const std::size_t chosen = library.plans(), pieces = library.room().pieces();
  check_all(s, library, l, 0, tolerance(precision::fp32));
  CHECK(library.plans() == chosen);
  CHECK(library.room().pieces() == pieces);
  const layer larger(24, 10, 7);
  check_all(s, library, larger, 0, tolerance(precision::fp32));
  CHECK(library.plans() == 2 * chosen);
}

TEST_CASE("cuda linear: two runs give the same bits, and so does a graph", "[cuda][linear]") {
  const stream s;
  cublaslt library(precision::fp32);
  const layer l(129, 33, 200);
  floats x(s, l.x), w(s, l.w), bias(s, l.bias), dy(s, l.dy), y(s, l.batch * l.out), dw(s, l.w.size()), db(s, l.out);
  const auto step = [&] {
    kd::cuda::linear_forward(s, library, l.in, l.out, l.batch, x.data(), w.data(), bias.data(), true, y.data());
    kd::cuda::linear_backward_weight(s, library, l.in, l.out, l.batch, x.data(), dy.data(), dw.data(), db.data(),
                                     nullptr);
  };
  step();
  const auto first_y = y.floats(), first_dw = dw.floats(), first_db = db.floats();
  const auto recorded = kd::cuda::graph::capture(s, step);
  const auto clear = [&] {
    for (floats* one : {&y, &dw, &db}) kd::cuda::fill_zero(s, one->data(), one->values().size());
  };
  clear();
  CHECK(y.floats() != first_y);
  recorded.launch(s);
  CHECK(y.floats() == first_y);
  CHECK(dw.floats() == first_dw);
  CHECK(db.floats() == first_db);
}

#if defined(KD_SIMT)

TEST_CASE("cuda linear: where cuBLASLt does not sum the bias' gradient, a kernel does", "[cuda][linear]") {
  simt::reset_libraries();
  simt::libraries().bias_gradient = false;
  const stream s;
  cublaslt library(precision::fp32);
  check_all(s, library, layer(33, 17, 131), 0, tolerance(precision::fp32));
  simt::reset_libraries();
}

TEST_CASE("cuda linear: where cuBLASLt does not round, floats are multiplied", "[cuda][linear]") {
  simt::reset_libraries();
  simt::libraries().fast_products = false;
  const stream s;
  cublaslt library(precision::bf16);
  check_all(s, library, layer(33, 17, 5), 0, tolerance(precision::fp32));
  simt::reset_libraries();
}

TEST_CASE("cuda linear: errors of cuBLASLt say operation, name, text and remedy", "[cuda][linear][error]") {
  const stream s;
  cublaslt library(precision::tf32);
  floats x(s, 6), w(s, 8), y(s, 12);
  const auto forward = [&] {
    kd::cuda::linear_forward(s, library, 2, 4, 3, x.data(), w.data(), nullptr, false, y.data());
  };
  const auto failing = [&](const char* call, cublasStatus_t status) {
    simt::reset_libraries();
    simt::libraries().failing_call = call;
    simt::libraries().failing_status = status;
    const std::string message = kd_test::message_of<kd::device_error>([&] {
      if (std::string(call) == "cublasLtCreate")
        cublaslt another(precision::fp32);
      else
        forward();
    });
    simt::reset_libraries();
    return message;
  };
  CHECK(kd_test::holds(failing("cublasLtCreate", CUBLAS_STATUS_ALLOC_FAILED),
                       "kd::cuda: cublasLtCreate failed: CUBLAS_STATUS_ALLOC_FAILED (", "free memory of this GPU"));
  CHECK(kd_test::holds(failing("cublasLtMatmulAlgoGetHeuristic", CUBLAS_STATUS_ARCH_MISMATCH),
                       "choosing an algorithm of cuBLASLt for the product of [3,2] by [2,4] in tf32 failed: "
                       "CUBLAS_STATUS_ARCH_MISMATCH",
                       "too old for this product: choose precision fp32"));
  CHECK(kd_test::holds(failing("cublasLtMatmul", CUBLAS_STATUS_EXECUTION_FAILED),
                       "cublasLtMatmul of [3,2] by [2,4] failed: CUBLAS_STATUS_EXECUTION_FAILED",
                       "CUDA_LAUNCH_BLOCKING=1"));
  // What failed leaves nothing behind.
  forward();
  s.synchronize();
}

#endif
