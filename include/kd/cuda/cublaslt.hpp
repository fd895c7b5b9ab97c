/// Matrix products by cuBLASLt, with bias and the bias' gradient done by the same kernel.
///
/// All matrices are row-major here. cuBLASLt is column-major, in which a row-major matrix is its transpose: for
/// D = A B it is asked for D^T = B^T A^T, so its first operand is this header's B, its rows are D's columns, its bias
/// along a column is D's along a row, and its bias gradient "by matrix B" is the one by A.
///
/// An algorithm is chosen once for each problem, by cuBLASLt's heuristic, and kept; partial sums may only be added in
/// a step of their own (no in-place reduction), so that two runs give the same bits.
///
/// Checked by tests/cuda/linear_test.cpp.
#pragma once

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>

#include "kd/core/error.hpp"
#include "kd/core/precision.hpp"
#include "kd/cuda/error.hpp"
#include "kd/cuda/stream.hpp"
#include "kd/cuda/workspace.hpp"
#include "kd/kernel/abi.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

namespace detail {

inline std::string_view remedy_of(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_NOT_INITIALIZED:
    case CUBLAS_STATUS_ALLOC_FAILED:
      return "free memory of this GPU, and check that the cuBLAS library belongs to this CUDA toolkit";
    case CUBLAS_STATUS_ARCH_MISMATCH:
      return "this GPU is too old for this product: choose precision fp32, or run with --device cpu";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "an earlier kernel may have failed: run with CUDA_LAUNCH_BLOCKING=1 to see which";
    default:
      return "check that the cuBLAS library belongs to this CUDA toolkit; CUBLASLT_LOG_LEVEL=2 makes it say more";
  }
}

/// For std::unique_ptr: calls Destroy.
template <auto Destroy>
struct destroyer {
  template <class Opaque>
  void operator()(Opaque* p) const {
    Destroy(p);
  }
};
template <class Handle, auto Destroy>
using owned = std::unique_ptr<std::remove_pointer_t<Handle>, destroyer<Destroy>>;

}  // namespace detail

/// Throws device_error unless the call succeeded: "kd::cuda: OPERATION failed: NAME (TEXT); REMEDY".
inline void check(cublasStatus_t status, std::string_view operation) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw device_error(text("kd::cuda: ", operation, " failed: ", cublasLtGetStatusName(status), " (",
                          cublasLtGetStatusString(status), "); ", detail::remedy_of(status)));
}

/// Numbers of a matrix in memory.
enum class element { float32, bfloat16 };

/// D (+)= A B, all row-major: A is [rows][depth] and B is [depth][columns], or stored the other way round. Sums are
/// float. A row begins `row_*` elements after the one before.
struct product {
  std::size_t rows = 0, columns = 0, depth = 0;
  bool a_transposed = false;  // stored as [depth][rows]
  bool b_transposed = false;  // stored as [columns][depth]
  std::size_t row_a = 0, row_b = 0, row_d = 0;
  element in = element::float32;   // of A and B
  element out = element::float32;  // of D
  bool accumulate = false;         // adds to D
  bool bias = false;               // + bias[column]; only where all matrices are floats
  bool sums_of_a = false;          // sums[row] = sum over the depth of A[row]; floats only, without bias

  friend auto operator<=>(const product&, const product&) = default;
};

/// A handle of cuBLASLt, its workspace, and the algorithms chosen so far. Move-only; for one stream at a time.
class KD_HIDDEN cublaslt {
 public:
  /// The most that an algorithm may take as workspace: what NVIDIA advises for Hopper.
  static constexpr std::size_t largest_workspace = std::size_t{32} << 20;

  /// In tf32 and bf16, products of floats may round their factors to that format.
  explicit cublaslt(kd::precision precision) : precision_(precision) {
    cublasLtHandle_t made = nullptr;
    check(cublasLtCreate(&made), "cublasLtCreate");
    handle_.reset(made);
  }

  /// Does the product; `bias` and `sums` are read and written only where it says so. Returns whether `sums` was
  /// written: cuBLASLt may have no algorithm that does it along with the product, and then the caller must.
  bool multiply(const stream& s, const product& p, const void* a, const void* b, const float* bias, float* sums,
                void* d) {
    if (p.rows == 0 || p.columns == 0) return false;
    const float* vector = p.bias ? bias : p.sums_of_a ? sums : nullptr;
    const key wanted{p, {alignment_of(a), alignment_of(b), alignment_of(d), alignment_of(vector)}};
    auto at = plans_.find(wanted);
    if (at == plans_.end()) at = plans_.emplace(wanted, choose(wanted, vector)).first;
    const plan& chosen = at->second;
    // The pointer is part of the descriptor, which a launch reads at once.
    if (p.bias || chosen.writes_sums) point(chosen.operation, vector);
    const float one = 1, beta = p.accumulate ? 1.0f : 0.0f;
    workspace::frame temporaries(room_);
    std::byte* memory = temporaries.take<std::byte>(s, chosen.workspace_bytes);
    check(cublasLtMatmul(handle_.get(), chosen.operation.get(), &one, b, chosen.first.get(), a, chosen.second.get(),
                         &beta, d, chosen.result.get(), d, chosen.result.get(), &chosen.algorithm, memory,
                         chosen.workspace_bytes, s.get()),
          describe("cublasLtMatmul", p));
    return chosen.writes_sums;
  }

  /// Temporaries of operations that are made of products.
  workspace& room() { return room_; }
  /// Problems for which an algorithm was chosen.
  std::size_t plans() const { return plans_.size(); }

 private:
  using operation_descriptor = detail::owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
  using matrix_layout = detail::owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
  using preference = detail::owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

  struct key {
    product problem;
    std::array<std::uint32_t, 4> alignment;  // in bytes, of A, B, D and the vector
    friend auto operator<=>(const key&, const key&) = default;
  };
  struct plan {
    operation_descriptor operation;
    matrix_layout first, second, result;  // in cuBLASLt's order
    cublasLtMatmulAlgo_t algorithm{};
    std::size_t workspace_bytes = 0;
    bool writes_sums = false;
  };

  /// The largest power of two that divides the address, at most 256.
  static std::uint32_t alignment_of(const void* p) {
    const auto address = reinterpret_cast<std::uintptr_t>(p);
    return address == 0 ? 256 : static_cast<std::uint32_t>(std::min<std::uintptr_t>(address & (~address + 1), 256));
  }
  static std::string describe(std::string_view call, const product& p) {
    return text(call, " of [", p.rows, ",", p.depth, "] by [", p.depth, ",", p.columns, "]");
  }
  template <class Value>
  static void set(const operation_descriptor& operation, cublasLtMatmulDescAttributes_t attribute, const Value& value) {
    check(cublasLtMatmulDescSetAttribute(operation.get(), attribute, &value, sizeof value),
          "cublasLtMatmulDescSetAttribute");
  }
  template <class Value>
  static void set(const preference& limits, cublasLtMatmulPreferenceAttributes_t attribute, const Value& value) {
    check(cublasLtMatmulPreferenceSetAttribute(limits.get(), attribute, &value, sizeof value),
          "cublasLtMatmulPreferenceSetAttribute");
  }
  static void point(const operation_descriptor& operation, const void* vector) {
    set(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, vector);
  }
  static cudaDataType_t type_of(element e) {
    switch (e) {
      case element::float32:
        return CUDA_R_32F;
      case element::bfloat16:
        return CUDA_R_16BF;
    }
    throw argument_error("kd::cuda::cublaslt: unknown element");
  }
  /// A row-major matrix as it is stored, which is column-major with rows and columns exchanged.
  static matrix_layout layout(element e, std::size_t stored_rows, std::size_t stored_columns, std::size_t row) {
    cublasLtMatrixLayout_t made = nullptr;
    check(cublasLtMatrixLayoutCreate(&made, type_of(e), stored_columns, stored_rows, static_cast<std::int64_t>(row)),
          "cublasLtMatrixLayoutCreate");
    return matrix_layout(made);
  }

  cublasComputeType_t compute_type(element in) const {
    if (in == element::bfloat16) return CUBLAS_COMPUTE_32F;
    switch (precision_) {
      case kd::precision::fp32:
        return CUBLAS_COMPUTE_32F;
      case kd::precision::tf32:
        return CUBLAS_COMPUTE_32F_FAST_TF32;
      case kd::precision::bf16:
        return CUBLAS_COMPUTE_32F_FAST_16BF;
    }
    throw argument_error("kd::cuda::cublaslt: unknown precision");
  }
  static cublasLtEpilogue_t epilogue_of(const product& p, bool with_sums) {
    if (with_sums) return CUBLASLT_EPILOGUE_BGRADB;
    return p.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  }

  /// First as asked for; then with the sums left to the caller; then without rounding, which is never less exact.
  plan choose(const key& wanted, const float* vector) const {
    const product& p = wanted.problem;
    cublasStatus_t status = CUBLAS_STATUS_NOT_SUPPORTED;
    for (const cublasComputeType_t compute : {compute_type(p.in), CUBLAS_COMPUTE_32F})
      for (const bool with_sums : {p.sums_of_a, false}) {
        plan made = describe_plan(p, compute, with_sums, vector);
        status = ask(wanted, made);
        if (status == CUBLAS_STATUS_SUCCESS) return made;
      }
    throw device_error(text("kd::cuda: ", describe("choosing an algorithm of cuBLASLt for the product", p), " in ",
                            text_of(precision_), " failed: ", cublasLtGetStatusName(status), " (",
                            cublasLtGetStatusString(status), "); ", detail::remedy_of(status)));
  }

  static plan describe_plan(const product& p, cublasComputeType_t compute, bool with_sums, const float* vector) {
    plan made;
    cublasLtMatmulDesc_t operation = nullptr;
    check(cublasLtMatmulDescCreate(&operation, compute, CUDA_R_32F), "cublasLtMatmulDescCreate");
    made.operation.reset(operation);
    // Stored transposed is transposed in cuBLASLt's view as well: both views turn the matrix over.
    set(made.operation, CUBLASLT_MATMUL_DESC_TRANSA, p.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(made.operation, CUBLASLT_MATMUL_DESC_TRANSB, p.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(made.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(p, with_sums));
    // The heuristic may look at its alignment.
    if (with_sums || p.bias) point(made.operation, vector);
    made.writes_sums = with_sums;
    made.first = p.b_transposed ? layout(p.in, p.columns, p.depth, p.row_b) : layout(p.in, p.depth, p.columns, p.row_b);
    made.second = p.a_transposed ? layout(p.in, p.depth, p.rows, p.row_a) : layout(p.in, p.rows, p.depth, p.row_a);
    made.result = layout(p.out, p.rows, p.columns, p.row_d);
    return made;
  }

  /// Completes a plan by the heuristic's first answer, if there is one.
  cublasStatus_t ask(const key& wanted, plan& made) const {
    cublasLtMatmulPreference_t handle = nullptr;
    check(cublasLtMatmulPreferenceCreate(&handle), "cublasLtMatmulPreferenceCreate");
    const preference limits(handle);
    const auto& [a, b, d, vector] = wanted.alignment;
    set(limits, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{largest_workspace});
    // Not in place: that adds partial sums in the result, in turn.
    set(limits, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    set(limits, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b);
    set(limits, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a);
    set(limits, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, d);
    set(limits, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, d);
    cublasLtMatmulHeuristicResult_t best{};
    int found = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle_.get(), made.operation.get(), made.first.get(), made.second.get(),
                                       made.result.get(), made.result.get(), limits.get(), 1, &best, &found);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if (found == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
    made.algorithm = best.algo;
    made.workspace_bytes = best.workspaceSize;
    return best.state;
  }

  kd::precision precision_;
  detail::owned<cublasLtHandle_t, cublasLtDestroy> handle_;
  std::map<key, plan> plans_;
  workspace room_;
};

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
