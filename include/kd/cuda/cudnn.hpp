/// Convolutions by cuDNN 9: forward, and the gradients of input and filter. Images are NHWC, filters KRSC, both float
/// or both bfloat16; sums are float.
///
/// Through the interface by algorithm (cudnnConvolutionForward and so on), not the graph interface: it names what this
/// library needs to know of an algorithm (whether it is deterministic, its workspace, which arithmetic it may use), its
/// table of supported types and layouts is documented, and cuDNN 9 answers it with the same engines.
///
/// For each problem an algorithm is chosen once and kept: the first in cuDNN's ranking that is deterministic, whose
/// workspace is small enough, and which multiplies the values as they stand. The transforms (Winograd, FFT) are left
/// out: their rounding would leave gradients in taps that only ever meet padding. fp32 and tf32 are told apart by the
/// convolution's math type, which is CUDNN_FMA_MATH in fp32 whatever the ranking says: the same algorithm may use
/// tensor cores or not. A bfloat16 filter's gradient is bfloat16 (PSEUDO_BFLOAT16_CONFIG, the one documented
/// combination); kd/cuda/conv2d.hpp makes floats of it.
///
/// Checked by tests/cuda/conv2d_test.cpp.
#pragma once

#include <cudnn.h>

#include <array>
#include <cstddef>
#include <map>
#include <string_view>
#include <type_traits>

#include "kd/core/error.hpp"
#include "kd/core/precision.hpp"
#include "kd/core/shape.hpp"
#include "kd/cuda/cublaslt.hpp"
#include "kd/cuda/error.hpp"
#include "kd/cuda/stream.hpp"
#include "kd/cuda/workspace.hpp"
#include "kd/kernel/number.cuh"

#pragma GCC visibility push(hidden)
namespace kd::inline KD_ABI::cuda {

namespace detail {

inline std::string_view remedy_of(cudnnStatus_t status) {
  switch (status) {
    case CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED:
      return "use a smaller batch, or free the memory that other programs hold on this GPU (nvidia-smi lists them)";
    case CUDNN_STATUS_NOT_INITIALIZED:
    case CUDNN_STATUS_SUBLIBRARY_VERSION_MISMATCH:
    case CUDNN_STATUS_SUBLIBRARY_LOADING_FAILED:
      return "check that all of cuDNN's files are of one version 9 that belongs to this CUDA toolkit "
             "(LD_LIBRARY_PATH), and that the GPU has free memory";
    case CUDNN_STATUS_NOT_SUPPORTED_INCOMPATIBLE_CUDA_DRIVER:
      return "install an NVIDIA driver that is at least as new as the CUDA toolkit, or run with --device cpu";
    case CUDNN_STATUS_NOT_SUPPORTED_ARCH_MISMATCH:
      return "this GPU is not supported by this cuDNN: choose precision fp32, or run with --device cpu";
    case CUDNN_STATUS_EXECUTION_FAILED:
      return "an earlier kernel may have failed: run with CUDA_LAUNCH_BLOCKING=1 to see which";
    default:
      return "CUDNN_LOGLEVEL_DBG=2 CUDNN_LOGDEST_DBG=stderr makes it say more";
  }
}

}  // namespace detail

/// Throws device_error unless the call succeeded: "kd::cuda: OPERATION failed: NAME (TEXT); REMEDY".
inline void check(cudnnStatus_t status, std::string_view operation) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  char message[512] = "";
  cudnnGetLastErrorString(message, sizeof message);
  throw device_error(text("kd::cuda: ", operation, " failed: ", cudnnGetErrorString(status), " (",
                          std::string_view(message), "); ", detail::remedy_of(status)));
}

/// A handle of cuDNN, its workspace, the algorithms chosen so far, and cuBLASLt for what is a plain product. Move-only;
/// for one stream at a time.
class KD_HIDDEN cudnn {
 public:
  /// The most that an algorithm may take as workspace; every device object has its own.
  static constexpr std::size_t largest_workspace = std::size_t{256} << 20;

  cudnn(const stream& s, kd::precision precision) : precision_(precision), products_(precision) {
    if (cudnnGetVersion() / 10000 != CUDNN_VERSION / 10000)
      throw device_error(text("kd::cuda: cuDNN ", cudnnGetVersion(), " was loaded, and this program was built for ",
                              CUDNN_VERSION, "; install that version, or build again"));
    cudnnHandle_t made = nullptr;
    check(cudnnCreate(&made), "cudnnCreate");
    handle_.reset(made);
    bind(s);
  }

  /// y = convolution of x by w. T is float or kernel::bfloat16, as in all that follow; the batch is not empty.
  template <class T>
  void forward(const stream& s, const conv2d_geometry& g, std::size_t batch, const T* x, const T* w, T* y) {
    const plan& p = plan_for<T>(pass::forward, g, batch);
    run(s, p, "cudnnConvolutionForward", [&](void* memory) {
      return cudnnConvolutionForward(handle_.get(), &one, p.x.get(), x, p.w.get(), w, p.convolution.get(),
                                     static_cast<cudnnConvolutionFwdAlgo_t>(p.algorithm), memory, p.workspace_bytes,
                                     &zero, p.y.get(), y);
    });
  }
  /// dx = the gradient of forward's input from dy, that of its output; or dx += it.
  template <class T>
  void backward_data(const stream& s, const conv2d_geometry& g, std::size_t batch, const T* dy, const T* w,
                     bool accumulate, T* dx) {
    const plan& p = plan_for<T>(pass::backward_data, g, batch);
    run(s, p, "cudnnConvolutionBackwardData", [&](void* memory) {
      return cudnnConvolutionBackwardData(handle_.get(), &one, p.w.get(), w, p.y.get(), dy, p.convolution.get(),
                                          static_cast<cudnnConvolutionBwdDataAlgo_t>(p.algorithm), memory,
                                          p.workspace_bytes, accumulate ? &one : &zero, p.x.get(), dx);
    });
  }
  /// dw = the gradient of forward's filter.
  template <class T>
  void backward_filter(const stream& s, const conv2d_geometry& g, std::size_t batch, const T* x, const T* dy, T* dw) {
    const plan& p = plan_for<T>(pass::backward_filter, g, batch);
    run(s, p, "cudnnConvolutionBackwardFilter", [&](void* memory) {
      return cudnnConvolutionBackwardFilter(handle_.get(), &one, p.x.get(), x, p.y.get(), dy, p.convolution.get(),
                                            static_cast<cudnnConvolutionBwdFilterAlgo_t>(p.algorithm), memory,
                                            p.workspace_bytes, &zero, p.w.get(), dw);
    });
  }

  /// Temporaries of operations that are made of several steps.
  workspace& room() { return room_; }
  /// For convolutions that are plain products.
  cublaslt& products() { return products_; }
  /// Problems for which an algorithm was chosen.
  std::size_t plans() const { return plans_.size(); }

 private:
  enum class pass { forward, backward_data, backward_filter };

  using tensor_descriptor = detail::owned<cudnnTensorDescriptor_t, cudnnDestroyTensorDescriptor>;
  using filter_descriptor = detail::owned<cudnnFilterDescriptor_t, cudnnDestroyFilterDescriptor>;
  using convolution_descriptor = detail::owned<cudnnConvolutionDescriptor_t, cudnnDestroyConvolutionDescriptor>;

  struct plan {
    tensor_descriptor x, y;
    filter_descriptor w;
    convolution_descriptor convolution;
    int algorithm = 0;
    std::size_t workspace_bytes = 0;
  };
  using key = std::array<std::size_t, 13>;

  static constexpr float one = 1, zero = 0;

  static int narrow(std::size_t n) {
    if (n > 0x7fffffffu)
      reject_argument("kd::cuda::cudnn", "extents must be at most 2147483647", n, "use a smaller batch or image");
    return static_cast<int>(n);
  }
  static tensor_descriptor tensor(cudnnDataType_t type, std::size_t batch, const shape& s) {
    cudnnTensorDescriptor_t made = nullptr;
    check(cudnnCreateTensorDescriptor(&made), "cudnnCreateTensorDescriptor");
    tensor_descriptor owner(made);
    check(cudnnSetTensor4dDescriptor(made, CUDNN_TENSOR_NHWC, type, narrow(batch), narrow(s.channels), narrow(s.height),
                                     narrow(s.width)),
          "cudnnSetTensor4dDescriptor");
    return owner;
  }
  static filter_descriptor filter(cudnnDataType_t type, const conv2d_geometry& g) {
    cudnnFilterDescriptor_t made = nullptr;
    check(cudnnCreateFilterDescriptor(&made), "cudnnCreateFilterDescriptor");
    filter_descriptor owner(made);
    check(cudnnSetFilter4dDescriptor(made, type, CUDNN_TENSOR_NHWC, narrow(g.out_channels), narrow(g.in_channels),
                                     narrow(g.kernel_h), narrow(g.kernel_w)),
          "cudnnSetFilter4dDescriptor");
    return owner;
  }
  static convolution_descriptor convolution(const conv2d_geometry& g) {
    cudnnConvolutionDescriptor_t made = nullptr;
    check(cudnnCreateConvolutionDescriptor(&made), "cudnnCreateConvolutionDescriptor");
    convolution_descriptor owner(made);
    check(cudnnSetConvolution2dDescriptor(made, narrow(g.padding_h), narrow(g.padding_w), narrow(g.stride_h),
                                          narrow(g.stride_w), 1, 1, CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT),
          "cudnnSetConvolution2dDescriptor");
    return owner;
  }

  void bind(const stream& s) {
    if (bound_ && bound_to_ == s.get()) return;
    check(cudnnSetStream(handle_.get(), s.get()), "cudnnSetStream");
    bound_to_ = s.get();
    bound_ = true;
  }
  template <class Call>
  void run(const stream& s, const plan& p, const char* name, const Call& call) {
    bind(s);
    workspace::frame temporaries(room_);
    check(call(temporaries.take<std::byte>(s, p.workspace_bytes)), name);
  }

  template <class T>
  const plan& plan_for(pass which, const conv2d_geometry& g, std::size_t batch) {
    constexpr bool is_float = std::is_same_v<T, float>;
    static_assert(is_float || std::is_same_v<T, kernel::bfloat16>, "kd::cuda::cudnn: T is float or kernel::bfloat16");
    const key wanted{static_cast<std::size_t>(which),
                     is_float,
                     batch,
                     g.in_channels,
                     g.in_height,
                     g.in_width,
                     g.out_channels,
                     g.kernel_h,
                     g.kernel_w,
                     g.stride_h,
                     g.stride_w,
                     g.padding_h,
                     g.padding_w};
    auto at = plans_.find(wanted);
    if (at == plans_.end()) at = plans_.emplace(wanted, make_plan(which, is_float, g, batch)).first;
    return at->second;
  }

  plan make_plan(pass which, bool is_float, const conv2d_geometry& g, std::size_t batch) const {
    const cudnnDataType_t type = is_float ? CUDNN_DATA_FLOAT : CUDNN_DATA_BFLOAT16;
    plan p;
    p.x = tensor(type, batch, g.in());
    p.y = tensor(type, batch, g.out());
    p.w = filter(type, g);
    p.convolution = convolution(g);
    const cudnnMathType_t math = math_of(is_float);
    check(cudnnSetConvolutionMathType(p.convolution.get(), math), "cudnnSetConvolutionMathType");
    if (!choose_algorithm(which, math, p))
      throw device_error(text("kd::cuda: cuDNN has no deterministic algorithm within ", largest_workspace >> 20,
                              " MiB of workspace for ", name_of(which), " of ", batch, " images ", text_of(g.in()),
                              " and a ", g.kernel_h, "x", g.kernel_w, " filter to ", g.out_channels, " channels in ",
                              text_of(precision_), "; use a smaller batch, or another precision"));
    return p;
  }
  /// What the ranking may consider, and the most that the chosen algorithm may round.
  cudnnMathType_t math_of(bool is_float) const {
    if (!is_float) return CUDNN_TENSOR_OP_MATH;
    switch (precision_) {
      case kd::precision::fp32:
        return CUDNN_FMA_MATH;
      case kd::precision::tf32:
      case kd::precision::bf16:
        return CUDNN_DEFAULT_MATH;
    }
    throw argument_error("kd::cuda::cudnn: unknown precision");
  }
  static const char* name_of(pass which) {
    switch (which) {
      case pass::forward:
        return "the convolution";
      case pass::backward_data:
        return "the input gradient of the convolution";
      case pass::backward_filter:
        return "the filter gradient of the convolution";
    }
    throw argument_error("kd::cuda::cudnn: unknown pass");
  }

  bool choose_algorithm(pass which, cudnnMathType_t math, plan& p) const {
    cudnnHandle_t h = handle_.get();
    switch (which) {
      case pass::forward:
        return take_first<cudnnConvolutionFwdAlgoPerf_t>(
            p, math, {CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM},
            [&](auto... out) {
              return cudnnGetConvolutionForwardAlgorithm_v7(h, p.x.get(), p.w.get(), p.convolution.get(), p.y.get(),
                                                            out...);
            },
            [&](auto... out) {
              return cudnnGetConvolutionForwardWorkspaceSize(h, p.x.get(), p.w.get(), p.convolution.get(), p.y.get(),
                                                             out...);
            });
      case pass::backward_data:
        return take_first<cudnnConvolutionBwdDataAlgoPerf_t>(
            p, math, {CUDNN_CONVOLUTION_BWD_DATA_ALGO_1, CUDNN_CONVOLUTION_BWD_DATA_ALGO_1},
            [&](auto... out) {
              return cudnnGetConvolutionBackwardDataAlgorithm_v7(h, p.w.get(), p.y.get(), p.convolution.get(),
                                                                 p.x.get(), out...);
            },
            [&](auto... out) {
              return cudnnGetConvolutionBackwardDataWorkspaceSize(h, p.w.get(), p.y.get(), p.convolution.get(),
                                                                  p.x.get(), out...);
            });
      case pass::backward_filter:
        return take_first<cudnnConvolutionBwdFilterAlgoPerf_t>(
            p, math, {CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1},
            [&](auto... out) {
              return cudnnGetConvolutionBackwardFilterAlgorithm_v7(h, p.x.get(), p.y.get(), p.convolution.get(),
                                                                   p.w.get(), out...);
            },
            [&](auto... out) {
              return cudnnGetConvolutionBackwardFilterWorkspaceSize(h, p.x.get(), p.y.get(), p.convolution.get(),
                                                                    p.w.get(), out...);
            });
    }
    throw argument_error("kd::cuda::cudnn: unknown pass");
  }

  /// Takes the first of cuDNN's ranking that serves. False where none does.
  template <class Performance, class Ranking, class Size>
  static bool take_first(plan& p, cudnnMathType_t math, const decltype(Performance::algo) (&allowed)[2],
                         const Ranking& ranking, const Size& workspace_size) {
    // Every algorithm may be there once for each arithmetic.
    std::array<Performance, 32> ranked{};
    int count = 0;
    check(ranking(static_cast<int>(ranked.size()), &count, ranked.data()), "cuDNN's ranking of algorithms");
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      const Performance& candidate = ranked[i];
      if (candidate.status != CUDNN_STATUS_SUCCESS || candidate.determinism != CUDNN_DETERMINISTIC ||
          (candidate.algo != allowed[0] && candidate.algo != allowed[1]))
        continue;
      // cuDNN wants to be told which arithmetic was ranked; but fp32 stays FMA, and floats are never rounded by half.
      const bool free_to_choose = math != CUDNN_FMA_MATH && candidate.mathType != CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION;
      check(cudnnSetConvolutionMathType(p.convolution.get(), free_to_choose ? candidate.mathType : math),
            "cudnnSetConvolutionMathType");
      // Asked again with that arithmetic: what does not serve with it says so here.
      std::size_t bytes = 0;
      if (workspace_size(candidate.algo, &bytes) != CUDNN_STATUS_SUCCESS || bytes > largest_workspace) continue;
      p.algorithm = static_cast<int>(candidate.algo);
      p.workspace_bytes = bytes;
      return true;
    }
    return false;
  }

  kd::precision precision_;
  detail::owned<cudnnHandle_t, cudnnDestroy> handle_;
  cudaStream_t bound_to_ = nullptr;
  bool bound_ = false;
  std::map<key, plan> plans_;
  workspace room_;
  cublaslt products_;
};

}  // namespace kd::inline KD_ABI::cuda
#pragma GCC visibility pop
