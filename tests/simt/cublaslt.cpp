// The stand-in of cuBLASLt: descriptors, a heuristic that checks them, and products as loops.
#define KD_SIMT_RUNTIME
#include "cublasLt.h"

#include <cmath>
#include <string_view>
#include <vector>

#include "library_numbers.hpp"

struct cublasLtContext {};
struct cublasLtMatmulDescOpaque_t {
  cublasComputeType_t compute;
  cublasOperation_t a = CUBLAS_OP_N, b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  void* bias = nullptr;
};
struct cublasLtMatrixLayoutOpaque_t {
  cudaDataType type;
  std::uint64_t rows, columns;
  std::int64_t leading;
};
struct cublasLtMatmulPreferenceOpaque_t {
  std::uint64_t workspace = 0;
  std::uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  std::uint32_t alignment[4] = {256, 256, 256, 256};
};

namespace simt {

static library_state state;
library_state& libraries() { return state; }
void reset_libraries() { state = {}; }

namespace {

cublasStatus_t begin(const char* call) {
  return std::string_view(call) == state.failing_call ? static_cast<cublasStatus_t>(state.failing_status)
                                                      : CUBLAS_STATUS_SUCCESS;
}

template <class Value>
cublasStatus_t set(Value& to, const void* value, std::size_t bytes) {
  if (bytes != sizeof to) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&to, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

/// A column-major product D[m,n] = op(A)[m,k] op(B)[k,n].
struct problem {
  std::size_t m, n, k, lda, ldb, ldd;
  bool transposed_a, transposed_b, bfloat16_in, bfloat16_out;
  cublasLtEpilogue_t epilogue;
  factors rounding;

  bool operator==(const problem&) const = default;
  std::uint64_t identity() const {
    std::uint64_t hash = 1469598103934665603u;
    for (const std::size_t part :
         {m, n, k, lda, ldb, ldd, std::size_t{transposed_a}, std::size_t{transposed_b}, std::size_t{bfloat16_in},
          std::size_t{bfloat16_out}, static_cast<std::size_t>(epilogue), static_cast<std::size_t>(rounding)})
      hash = (hash ^ part) * 1099511628211u;
    return hash;
  }
};

bool valid(const cublasLtMatrixLayoutOpaque_t& l) {
  return l.rows > 0 && l.columns > 0 && l.leading >= static_cast<std::int64_t>(l.rows) &&
         (l.type == CUDA_R_32F || l.type == CUDA_R_16BF);
}

/// False where the descriptors contradict each other.
bool describe(const cublasLtMatmulDescOpaque_t& op, const cublasLtMatrixLayoutOpaque_t& a,
              const cublasLtMatrixLayoutOpaque_t& b, const cublasLtMatrixLayoutOpaque_t& d, problem& p) {
  if (!valid(a) || !valid(b) || !valid(d) || a.type != b.type) return false;
  p.transposed_a = op.a == CUBLAS_OP_T;
  p.transposed_b = op.b == CUBLAS_OP_T;
  p.m = d.rows;
  p.n = d.columns;
  p.k = p.transposed_a ? a.rows : a.columns;
  if ((p.transposed_a ? a.columns : a.rows) != p.m) return false;
  if ((p.transposed_b ? b.rows : b.columns) != p.n || (p.transposed_b ? b.columns : b.rows) != p.k) return false;
  p.lda = static_cast<std::size_t>(a.leading);
  p.ldb = static_cast<std::size_t>(b.leading);
  p.ldd = static_cast<std::size_t>(d.leading);
  p.bfloat16_in = a.type == CUDA_R_16BF;
  p.bfloat16_out = d.type == CUDA_R_16BF;
  p.epilogue = op.epilogue;
  p.rounding = op.compute == CUBLAS_COMPUTE_32F_FAST_TF32   ? factors::tf32
               : op.compute == CUBLAS_COMPUTE_32F_FAST_16BF ? factors::bf16
                                                            : factors::as_they_are;
  return true;
}

bool takes_vector(cublasLtEpilogue_t e) {
  return e == CUBLASLT_EPILOGUE_BIAS || e == CUBLASLT_EPILOGUE_RELU_BIAS || e == CUBLASLT_EPILOGUE_BGRADA ||
         e == CUBLASLT_EPILOGUE_BGRADB;
}

/// The part of NVIDIA's table of supported types that kd needs.
bool supported(const problem& p) {
  if (p.bfloat16_in && p.rounding != factors::as_they_are) return false;
  if (!p.bfloat16_in && p.bfloat16_out) return false;
  // The type of bias would be D's or another; kd only knows floats.
  if (takes_vector(p.epilogue) && (p.bfloat16_in || p.bfloat16_out)) return false;
  if (p.rounding != factors::as_they_are && !state.fast_products) return false;
  if (p.epilogue == CUBLASLT_EPILOGUE_BGRADB) return state.bias_gradient;
  return p.epilogue != CUBLASLT_EPILOGUE_BGRADA;
}

void run(const problem& p, float alpha, numbers a, numbers b, float beta, void* d, void* vector) {
  std::vector<float> row(p.k);
  const auto a_at = [&](std::size_t i, std::size_t j) { return p.transposed_a ? j + i * p.lda : i + j * p.lda; };
  const auto b_at = [&](std::size_t i, std::size_t j) { return p.transposed_b ? j + i * p.ldb : i + j * p.ldb; };
  for (std::size_t i = 0; i < p.m; ++i) {
    for (std::size_t l = 0; l < p.k; ++l) row[l] = factor(a[a_at(i, l)], p.rounding);
    for (std::size_t j = 0; j < p.n; ++j) {
      float sum = 0;
      for (std::size_t l = 0; l < p.k; ++l) sum += row[l] * factor(b[b_at(l, j)], p.rounding);
      sum *= alpha;
      // As documented: with beta 0, C is not read and may hold anything.
      if (beta != 0) sum += beta * numbers{d, p.bfloat16_out}[i + j * p.ldd];
      if (p.epilogue == CUBLASLT_EPILOGUE_BIAS || p.epilogue == CUBLASLT_EPILOGUE_RELU_BIAS)
        sum += static_cast<const float*>(vector)[i];
      if ((p.epilogue == CUBLASLT_EPILOGUE_RELU || p.epilogue == CUBLASLT_EPILOGUE_RELU_BIAS) && !(sum > 0)) sum = 0;
      store(d, p.bfloat16_out, i + j * p.ldd, sum);
    }
  }
  if (p.epilogue != CUBLASLT_EPILOGUE_BGRADB) return;
  for (std::size_t j = 0; j < p.n; ++j) {
    float sum = 0;
    for (std::size_t l = 0; l < p.k; ++l) sum += b[b_at(l, j)];
    static_cast<float*>(vector)[j] = sum;
  }
}

bool aligned(const void* p, std::uint64_t to) { return reinterpret_cast<std::uintptr_t>(p) % to == 0; }

}  // namespace
}  // namespace simt

const char* cublasGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
      return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH:
      return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
      return "CUBLAS_STATUS_INTERNAL_ERROR";
  }
}
const char* cublasGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_NOT_SUPPORTED ? "the functionality requested is not supported"
                                               : "an error of the stand-in of cuBLASLt";
}
const char* cublasLtGetStatusName(cublasStatus_t status) { return cublasGetStatusName(status); }
const char* cublasLtGetStatusString(cublasStatus_t status) { return cublasGetStatusString(status); }

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  if (const cublasStatus_t status = simt::begin("cublasLtCreate"); status != CUBLAS_STATUS_SUCCESS) return status;
  *handle = new cublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* operation, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  if (scale != CUDA_R_32F) return CUBLAS_STATUS_INVALID_VALUE;
  *operation = new cublasLtMatmulDescOpaque_t{.compute = compute};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation) {
  delete operation;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, std::size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return simt::set(operation->a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return simt::set(operation->b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return simt::set(operation->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return simt::set(operation->bias, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, std::uint64_t rows,
                                          std::uint64_t columns, std::int64_t leading) {
  *layout = new cublasLtMatrixLayoutOpaque_t{type, rows, columns, leading};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = new cublasLtMatmulPreferenceOpaque_t;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    std::size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return simt::set(preference->workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return simt::set(preference->reductions, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return simt::set(preference->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t* results, int* found) {
  *found = 0;
  if (const cublasStatus_t status = simt::begin("cublasLtMatmulAlgoGetHeuristic"); status != CUBLAS_STATUS_SUCCESS)
    return status;
  ++simt::state.heuristics;
  simt::problem p{};
  if (wanted < 1 || c != d || !simt::describe(*operation, *a, *b, *d, p)) return CUBLAS_STATUS_INVALID_VALUE;
  if (!simt::supported(p)) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (simt::takes_vector(p.epilogue) && operation->bias == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  *results = {};
  results->state = CUBLAS_STATUS_SUCCESS;
  results->workspaceSize = preference->workspace < 4096 ? 0 : 4096;
  // An algorithm serves its problem, workspace and alignments alone.
  auto& data = results->algo.data;
  data[0] = p.identity();
  data[1] = results->workspaceSize;
  for (std::size_t i = 0; i < 4; ++i) data[2 + i] = preference->alignment[i];
  data[6] = preference->reductions & CUBLASLT_REDUCTION_SCHEME_INPLACE;
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t operation, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              std::size_t workspace_bytes, cudaStream_t stream) {
  if (const cublasStatus_t status = simt::begin("cublasLtMatmul"); status != CUBLAS_STATUS_SUCCESS) return status;
  simt::problem p{};
  if (c != d || c_layout != d_layout || !simt::describe(*operation, *a_layout, *b_layout, *d_layout, p))
    return CUBLAS_STATUS_INVALID_VALUE;
  const auto& data = algorithm->data;
  if (data[0] != p.identity() || workspace_bytes < data[1] || (data[1] > 0 && !simt::aligned(workspace, 256)) ||
      (data[1] > 0 && workspace == nullptr))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (!simt::aligned(a, data[2]) || !simt::aligned(b, data[3]) || !simt::aligned(c, data[4]) ||
      !simt::aligned(d, data[5]))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (simt::takes_vector(p.epilogue) && operation->bias == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  const float scale = *static_cast<const float*>(alpha), kept = *static_cast<const float*>(beta);
  const bool in_place = data[6] != 0;
  const auto work = [=, vector = operation->bias, spoiled = data[1]] {
    simt::run(p, scale, {a, p.bfloat16_in}, {b, p.bfloat16_in}, kept, d, vector);
    simt::spoil(workspace, spoiled);
    // A reduction in place may give other bits in every run: kd must not allow it.
    if (in_place) simt::store(d, p.bfloat16_out, 0, std::nanf(""));
  };
  return simt::enqueue(stream, "cublasLtMatmul", work) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                                      : CUBLAS_STATUS_EXECUTION_FAILED;
}
