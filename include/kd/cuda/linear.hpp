/// Linear layers on the GPU, by cuBLASLt: forward, and the gradients of input, weights and bias. Rows of features are
/// floats in every precision; in tf32 and bf16 tensor cores round the factors.
#pragma once

#include <cstddef>

#include "kd/cuda/activation.hpp"
#include "kd/cuda/buffer.hpp"
#include "kd/cuda/cublaslt.hpp"
#include "kd/cuda/reduce.hpp"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

/// Floats of scratch that the gradients need: none, the library's workspace holds what there is.
constexpr std::size_t linear_scratch(std::size_t /*in*/, std::size_t /*out*/, std::size_t /*batch*/) { return 0; }

/// y = x w^T + bias (or none), then max(0, .) if relu. Relu is a kernel of kd's, with the bias in it, and not the
/// epilogue of the library, which is defined by max() and may turn a NaN into 0: a diverged training would go on
/// unnoticed.
/// @param x [batch][in]
/// @param w [out][in]
/// @param bias [out], or null for none
/// @param y [batch][out], overwritten
KD_HIDDEN inline void linear_forward(const stream& s, cublaslt& library, std::size_t in, std::size_t out,
                                     std::size_t batch, const float* x, const float* w, const float* bias, bool relu,
                                     float* y) {
  const product p{.rows = batch,
                  .columns = out,
                  .depth = in,
                  .b_transposed = true,
                  .row_a = in,
                  .row_b = in,
                  .row_d = out,
                  .bias = bias != nullptr && !relu};
  library.multiply(s, p, x, w, bias, nullptr, y);
  if (relu) bias_relu(s, batch, out, static_cast<const float*>(y), bias, true, y);
}

/// dx = dy w, or dx += dy w.
KD_HIDDEN inline void linear_backward_data(const stream& s, cublaslt& library, std::size_t in, std::size_t out,
                                           std::size_t batch, const float* dy, const float* w, bool accumulate,
                                           float* dx, float* /*scratch*/) {
  const product p{
      .rows = batch, .columns = in, .depth = out, .row_a = out, .row_b = in, .row_d = in, .accumulate = accumulate};
  library.multiply(s, p, dy, w, nullptr, nullptr, dx);
}

/// dw = dy^T x and, where db is not null, db = the sum of dy over the batch; both are overwritten.
KD_HIDDEN inline void linear_backward_weight(const stream& s, cublaslt& library, std::size_t in, std::size_t out,
                                             std::size_t batch, const float* x, const float* dy, float* dw, float* db,
                                             float* /*scratch*/) {
  if (batch == 0) {
    fill_zero(s, dw, out * in);
    if (db != nullptr) fill_zero(s, db, out);
    return;
  }
  const product p{.rows = out,
                  .columns = in,
                  .depth = batch,
                  .a_transposed = true,
                  .row_a = out,
                  .row_b = in,
                  .row_d = in,
                  .sums_of_a = db != nullptr};
  const bool summed = library.multiply(s, p, dy, x, nullptr, db, dw);
  if (db == nullptr || summed) return;
  workspace::frame temporaries(library.room());
  column_sums(s, batch, out, dy, db, temporaries.take<float>(s, column_sums_scratch(batch, out)));
}

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
