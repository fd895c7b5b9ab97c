// The stand-in of cuDNN: descriptors, rankings that hold traps, and convolutions as loops.
#define KD_SIMT_RUNTIME
#include "cudnn.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <string_view>
#include <vector>

#include "cublasLt.h"
#include "library_numbers.hpp"

struct cudnnContext {
  cudaStream_t stream = nullptr;
};
struct cudnnTensorStruct {
  cudnnTensorFormat_t format;
  cudnnDataType_t type;
  int n, c, h, w;
};
struct cudnnFilterStruct {
  cudnnTensorFormat_t format;
  cudnnDataType_t type;
  int k, c, h, w;
};
struct cudnnConvolutionStruct {
  int pad_h, pad_w, stride_h, stride_w;
  cudnnConvolutionMode_t mode;
  cudnnDataType_t compute;
  cudnnMathType_t math = CUDNN_DEFAULT_MATH;
};

namespace simt {
namespace {

cudnnStatus_t begin(const char* call) {
  return std::string_view(call) == libraries().failing_call ? static_cast<cudnnStatus_t>(libraries().failing_status)
                                                            : CUDNN_STATUS_SUCCESS;
}

/// Images are [n][h][w][c], filters [k][r][s][c], of floats or of bfloat16.
struct convolution {
  std::size_t n, c, h, w, k, r, s, out_h, out_w, pad_h, pad_w, stride_h, stride_w;
  bool bfloat16;
  factors rounding;

  std::size_t x_size() const { return n * h * w * c; }
  std::size_t y_size() const { return n * out_h * out_w * k; }
  std::size_t w_size() const { return k * r * s * c; }
};

/// False where the descriptors contradict each other or no engine takes them.
bool describe(cudnnTensorDescriptor_t x, cudnnFilterDescriptor_t w, cudnnConvolutionDescriptor_t conv,
              cudnnTensorDescriptor_t y, convolution& p) {
  if (x->format != CUDNN_TENSOR_NHWC || y->format != CUDNN_TENSOR_NHWC || w->format != CUDNN_TENSOR_NHWC) return false;
  if (x->type != y->type || x->type != w->type || conv->compute != CUDNN_DATA_FLOAT) return false;
  if (conv->mode != CUDNN_CROSS_CORRELATION || x->n != y->n || x->c != w->c || y->c != w->k) return false;
  if (y->h != (x->h + 2 * conv->pad_h - w->h) / conv->stride_h + 1) return false;
  if (y->w != (x->w + 2 * conv->pad_w - w->w) / conv->stride_w + 1) return false;
  const auto size = [](int value) { return static_cast<std::size_t>(value); };
  p = {size(x->n), size(x->c), size(x->h), size(x->w), size(w->k), size(w->h), size(w->w), size(y->h), size(y->w),
       size(conv->pad_h), size(conv->pad_w), size(conv->stride_h), size(conv->stride_w), x->type == CUDNN_DATA_BFLOAT16,
       // Anything but FMA lets an A100 or later use its tensor cores, which round floats.
       conv->math == CUDNN_FMA_MATH ? factors::as_they_are : factors::tf32};
  return true;
}

std::vector<float> read(const convolution& p, const void* memory, std::size_t size, bool as_factors = true) {
  const numbers from{memory, p.bfloat16};
  std::vector<float> all(size);
  for (std::size_t i = 0; i < size; ++i) all[i] = as_factors && !p.bfloat16 ? factor(from[i], p.rounding) : from[i];
  return all;
}

/// Calls body(place in x, place in w without k, place in y without k) for every tap that meets the image; runs of c.
template <class Body>
void for_each_tap(const convolution& p, const Body& body) {
  for (std::size_t n = 0; n < p.n; ++n)
    for (std::size_t oh = 0; oh < p.out_h; ++oh)
      for (std::size_t ow = 0; ow < p.out_w; ++ow)
        for (std::size_t r = 0; r < p.r; ++r)
          for (std::size_t s = 0; s < p.s; ++s) {
            const std::size_t h = oh * p.stride_h + r - p.pad_h, w = ow * p.stride_w + s - p.pad_w;
            if (h >= p.h || w >= p.w) continue;  // padding; before the image the numbers wrap around
            body(((n * p.h + h) * p.w + w) * p.c, (r * p.s + s) * p.c, ((n * p.out_h + oh) * p.out_w + ow) * p.k);
          }
}

/// result = alpha sums + beta result, in the type of the problem.
void finish(const convolution& p, const std::vector<float>& sums, float alpha, float beta, void* result) {
  for (std::size_t i = 0; i < sums.size(); ++i) {
    float value = alpha * sums[i];
    if (beta != 0) value += beta * numbers{result, p.bfloat16}[i];
    store(result, p.bfloat16, i, value);
  }
}

void forward(const convolution& p, float alpha, const void* x_memory, const void* w_memory, float beta, void* y) {
  const auto x = read(p, x_memory, p.x_size()), w = read(p, w_memory, p.w_size());
  std::vector<float> sums(p.y_size());
  const std::size_t filter = p.r * p.s * p.c;
  for_each_tap(p, [&](std::size_t in, std::size_t tap, std::size_t out) {
    for (std::size_t k = 0; k < p.k; ++k) {
      float sum = 0;
      for (std::size_t c = 0; c < p.c; ++c) sum += x[in + c] * w[k * filter + tap + c];
      sums[out + k] += sum;
    }
  });
  finish(p, sums, alpha, beta, y);
}
void backward_data(const convolution& p, float alpha, const void* w_memory, const void* dy_memory, float beta,
                   void* dx) {
  const auto w = read(p, w_memory, p.w_size()), dy = read(p, dy_memory, p.y_size());
  std::vector<float> sums(p.x_size());
  const std::size_t filter = p.r * p.s * p.c;
  for_each_tap(p, [&](std::size_t in, std::size_t tap, std::size_t out) {
    for (std::size_t k = 0; k < p.k; ++k)
      for (std::size_t c = 0; c < p.c; ++c) sums[in + c] += dy[out + k] * w[k * filter + tap + c];
  });
  finish(p, sums, alpha, beta, dx);
}
void backward_filter(const convolution& p, float alpha, const void* x_memory, const void* dy_memory, float beta,
                     void* dw) {
  const auto x = read(p, x_memory, p.x_size()), dy = read(p, dy_memory, p.y_size());
  std::vector<float> sums(p.w_size());
  const std::size_t filter = p.r * p.s * p.c;
  for_each_tap(p, [&](std::size_t in, std::size_t tap, std::size_t out) {
    for (std::size_t k = 0; k < p.k; ++k)
      for (std::size_t c = 0; c < p.c; ++c) sums[k * filter + tap + c] += dy[out + k] * x[in + c];
  });
  finish(p, sums, alpha, beta, dw);
}

/// Bytes of workspace of the algorithms that kd may take.
constexpr std::size_t forward_workspace = 8192, data_workspace = 12288, filter_workspace = 16384;

/// A ranking whose first entries kd must pass over: another number of bits in every run, a transform, too much memory.
template <class Algorithm>
void rank(Algorithm random, Algorithm transform, Algorithm good, std::size_t workspace, cudnnMathType_t math,
          int wanted, int* found, cudnnPerformance<Algorithm>* results) {
  const bool fma = math == CUDNN_FMA_MATH;
  const cudnnDeterminism_t exact =
      libraries().deterministic_convolutions ? CUDNN_DETERMINISTIC : CUDNN_NON_DETERMINISTIC;
  const cudnnPerformance<Algorithm> all[] = {
      {good, CUDNN_STATUS_NOT_SUPPORTED, -1, 0, CUDNN_DETERMINISTIC, math, {}},
      {random, CUDNN_STATUS_SUCCESS, -1, 0, CUDNN_NON_DETERMINISTIC, math, {}},
      {transform, CUDNN_STATUS_SUCCESS, -1, 0, CUDNN_DETERMINISTIC, math, {}},
      // As cuDNN does, ranked for tensor cores even where the convolution asks for FMA.
      {good, CUDNN_STATUS_SUCCESS, -1, workspace, exact, CUDNN_TENSOR_OP_MATH, {}},
      {good, CUDNN_STATUS_SUCCESS, -1, workspace, exact, fma ? CUDNN_FMA_MATH : CUDNN_DEFAULT_MATH, {}}};
  *found = 0;
  for (const auto& one : all)
    if (*found < wanted) results[(*found)++] = one;
}

cudnnStatus_t ranked(const char* call, bool described) {
  ++libraries().heuristics;
  if (const cudnnStatus_t status = begin(call); status != CUDNN_STATUS_SUCCESS) return status;
  return described ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM;
}

/// Puts the work into the stream; an algorithm that kd must not take leaves a NaN. cuDNN ranks its engines for pointers
/// that are aligned to 16 bytes, and may refuse others.
template <class Work>
cudnnStatus_t run(const char* call, cudnnHandle_t handle, bool described, bool good, std::size_t needed,
                  void* workspace, std::size_t workspace_bytes, std::initializer_list<const void*> operands,
                  void* result, bool bfloat16, const Work& work) {
  if (const cudnnStatus_t status = begin(call); status != CUDNN_STATUS_SUCCESS) return status;
  const auto misaligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 != 0; };
  if (misaligned(result) || std::any_of(operands.begin(), operands.end(), misaligned))
    return CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER;
  if (!described || workspace_bytes < needed || workspace == nullptr) return CUDNN_STATUS_BAD_PARAM;
  const auto all = [=] {
    work();
    spoil(workspace, needed);
    if (!good) store(result, bfloat16, 0, std::nanf(""));
  };
  return enqueue(handle->stream, call, all) == cudaSuccess ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_EXECUTION_FAILED;
}

cudnnStatus_t workspace_size(bool described, std::size_t needed, std::size_t* bytes) {
  *bytes = needed;
  return described ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED;
}
float scalar(const void* p) { return *static_cast<const float*>(p); }

}  // namespace
}  // namespace simt

using simt::convolution;

std::size_t cudnnGetVersion() { return CUDNN_VERSION; }
const char* cudnnGetErrorString(cudnnStatus_t status) {
  switch (status) {
    case CUDNN_STATUS_SUCCESS:
      return "CUDNN_STATUS_SUCCESS";
    case CUDNN_STATUS_NOT_INITIALIZED:
      return "CUDNN_STATUS_NOT_INITIALIZED";
    case CUDNN_STATUS_BAD_PARAM:
      return "CUDNN_STATUS_BAD_PARAM";
    case CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER:
      return "CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER";
    case CUDNN_STATUS_NOT_SUPPORTED:
      return "CUDNN_STATUS_NOT_SUPPORTED";
    case CUDNN_STATUS_EXECUTION_FAILED:
      return "CUDNN_STATUS_EXECUTION_FAILED";
    case CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED:
      return "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED";
    default:
      return "CUDNN_STATUS_INTERNAL_ERROR";
  }
}
void cudnnGetLastErrorString(char* message, std::size_t size) {
  std::snprintf(message, size, "%s", "an error of the stand-in of cuDNN");
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  if (const cudnnStatus_t status = simt::begin("cudnnCreate"); status != CUDNN_STATUS_SUCCESS) return status;
  *handle = new cudnnContext;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  delete handle;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t* tensor) {
  *tensor = new cudnnTensorStruct{};
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t tensor) {
  delete tensor;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetTensor4dDescriptor(cudnnTensorDescriptor_t tensor, cudnnTensorFormat_t format,
                                         cudnnDataType_t type, int n, int c, int h, int w) {
  if (n < 1 || c < 1 || h < 1 || w < 1) return CUDNN_STATUS_BAD_PARAM;
  *tensor = {format, type, n, c, h, w};
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t* filter) {
  *filter = new cudnnFilterStruct{};
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t filter) {
  delete filter;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetFilter4dDescriptor(cudnnFilterDescriptor_t filter, cudnnDataType_t type,
                                         cudnnTensorFormat_t format, int k, int c, int h, int w) {
  if (k < 1 || c < 1 || h < 1 || w < 1) return CUDNN_STATUS_BAD_PARAM;
  *filter = {format, type, k, c, h, w};
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t* made) {
  *made = new cudnnConvolutionStruct{};
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t made) {
  delete made;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetConvolution2dDescriptor(cudnnConvolutionDescriptor_t made, int pad_h, int pad_w, int stride_h,
                                              int stride_w, int dilation_h, int dilation_w, cudnnConvolutionMode_t mode,
                                              cudnnDataType_t compute) {
  if (pad_h < 0 || pad_w < 0 || stride_h < 1 || stride_w < 1 || dilation_h != 1 || dilation_w != 1)
    return CUDNN_STATUS_BAD_PARAM;
  *made = {pad_h, pad_w, stride_h, stride_w, mode, compute};
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t made, cudnnMathType_t math) {
  made->math = math;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(cudnnHandle_t, cudnnTensorDescriptor_t x,
                                                     cudnnFilterDescriptor_t w, cudnnConvolutionDescriptor_t conv,
                                                     cudnnTensorDescriptor_t y, int wanted, int* found,
                                                     cudnnConvolutionFwdAlgoPerf_t* results) {
  convolution p{};
  simt::rank(CUDNN_CONVOLUTION_FWD_ALGO_FFT, CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD,
             CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, simt::forward_workspace, conv->math, wanted, found,
             results);
  return simt::ranked("cudnnGetConvolutionForwardAlgorithm_v7", simt::describe(x, w, conv, y, p));
}
cudnnStatus_t cudnnGetConvolutionForwardWorkspaceSize(cudnnHandle_t, cudnnTensorDescriptor_t x,
                                                      cudnnFilterDescriptor_t w, cudnnConvolutionDescriptor_t conv,
                                                      cudnnTensorDescriptor_t y, cudnnConvolutionFwdAlgo_t,
                                                      std::size_t* bytes) {
  convolution p{};
  return simt::workspace_size(simt::describe(x, w, conv, y, p), simt::forward_workspace, bytes);
}
cudnnStatus_t cudnnConvolutionForward(cudnnHandle_t handle, const void* alpha, cudnnTensorDescriptor_t x_descriptor,
                                      const void* x, cudnnFilterDescriptor_t w_descriptor, const void* w,
                                      cudnnConvolutionDescriptor_t conv, cudnnConvolutionFwdAlgo_t algorithm,
                                      void* workspace, std::size_t workspace_bytes, const void* beta,
                                      cudnnTensorDescriptor_t y_descriptor, void* y) {
  convolution p{};
  const bool described = simt::describe(x_descriptor, w_descriptor, conv, y_descriptor, p);
  return simt::run("cudnnConvolutionForward", handle, described,
                   algorithm == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, simt::forward_workspace, workspace,
                   workspace_bytes, {x, w}, y, p.bfloat16,
                   [=, a = simt::scalar(alpha), b = simt::scalar(beta)] { simt::forward(p, a, x, w, b, y); });
}

cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnnHandle_t, cudnnFilterDescriptor_t w,
                                                          cudnnTensorDescriptor_t dy, cudnnConvolutionDescriptor_t conv,
                                                          cudnnTensorDescriptor_t dx, int wanted, int* found,
                                                          cudnnConvolutionBwdDataAlgoPerf_t* results) {
  convolution p{};
  simt::rank(CUDNN_CONVOLUTION_BWD_DATA_ALGO_0, CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD,
             CUDNN_CONVOLUTION_BWD_DATA_ALGO_1, simt::data_workspace, conv->math, wanted, found, results);
  return simt::ranked("cudnnGetConvolutionBackwardDataAlgorithm_v7", simt::describe(dx, w, conv, dy, p));
}
cudnnStatus_t cudnnGetConvolutionBackwardDataWorkspaceSize(cudnnHandle_t, cudnnFilterDescriptor_t w,
                                                           cudnnTensorDescriptor_t dy,
                                                           cudnnConvolutionDescriptor_t conv,
                                                           cudnnTensorDescriptor_t dx, cudnnConvolutionBwdDataAlgo_t,
                                                           std::size_t* bytes) {
  convolution p{};
  return simt::workspace_size(simt::describe(dx, w, conv, dy, p), simt::data_workspace, bytes);
}
cudnnStatus_t cudnnConvolutionBackwardData(cudnnHandle_t handle, const void* alpha,
                                           cudnnFilterDescriptor_t w_descriptor, const void* w,
                                           cudnnTensorDescriptor_t dy_descriptor, const void* dy,
                                           cudnnConvolutionDescriptor_t conv, cudnnConvolutionBwdDataAlgo_t algorithm,
                                           void* workspace, std::size_t workspace_bytes, const void* beta,
                                           cudnnTensorDescriptor_t dx_descriptor, void* dx) {
  convolution p{};
  const bool described = simt::describe(dx_descriptor, w_descriptor, conv, dy_descriptor, p);
  return simt::run("cudnnConvolutionBackwardData", handle, described, algorithm == CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
                   simt::data_workspace, workspace, workspace_bytes, {w, dy}, dx, p.bfloat16,
                   [=, a = simt::scalar(alpha), b = simt::scalar(beta)] { simt::backward_data(p, a, w, dy, b, dx); });
}

cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithm_v7(cudnnHandle_t, cudnnTensorDescriptor_t x,
                                                            cudnnTensorDescriptor_t dy,
                                                            cudnnConvolutionDescriptor_t conv,
                                                            cudnnFilterDescriptor_t dw, int wanted, int* found,
                                                            cudnnConvolutionBwdFilterAlgoPerf_t* results) {
  convolution p{};
  simt::rank(CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD_NONFUSED,
             CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1, simt::filter_workspace, conv->math, wanted, found, results);
  return simt::ranked("cudnnGetConvolutionBackwardFilterAlgorithm_v7", simt::describe(x, dw, conv, dy, p));
}
cudnnStatus_t cudnnGetConvolutionBackwardFilterWorkspaceSize(cudnnHandle_t, cudnnTensorDescriptor_t x,
                                                             cudnnTensorDescriptor_t dy,
                                                             cudnnConvolutionDescriptor_t conv,
                                                             cudnnFilterDescriptor_t dw,
                                                             cudnnConvolutionBwdFilterAlgo_t, std::size_t* bytes) {
  convolution p{};
  return simt::workspace_size(simt::describe(x, dw, conv, dy, p), simt::filter_workspace, bytes);
}
cudnnStatus_t cudnnConvolutionBackwardFilter(cudnnHandle_t handle, const void* alpha,
                                             cudnnTensorDescriptor_t x_descriptor, const void* x,
                                             cudnnTensorDescriptor_t dy_descriptor, const void* dy,
                                             cudnnConvolutionDescriptor_t conv,
                                             cudnnConvolutionBwdFilterAlgo_t algorithm, void* workspace,
                                             std::size_t workspace_bytes, const void* beta,
                                             cudnnFilterDescriptor_t dw_descriptor, void* dw) {
  convolution p{};
  const bool described = simt::describe(x_descriptor, dw_descriptor, conv, dy_descriptor, p);
  return simt::run("cudnnConvolutionBackwardFilter", handle, described,
                   algorithm == CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1, simt::filter_workspace, workspace, workspace_bytes,
                   {x, dy}, dw, p.bfloat16,
                   [=, a = simt::scalar(alpha), b = simt::scalar(beta)] { simt::backward_filter(p, a, x, dy, b, dw); });
}
