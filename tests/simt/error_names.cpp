// Names and texts of the runtime's error codes.
#define KD_SIMT_RUNTIME
#include "cuda_runtime_api.h"

namespace {

struct named {
  cudaError_t code;
  const char* name;
  const char* text;
};
#define KD_SIMT_NAMED(code, text) \
  { code, #code, text }
constexpr named codes[] = {
    KD_SIMT_NAMED(cudaSuccess, "no error"),
    KD_SIMT_NAMED(cudaErrorInvalidValue, "invalid argument"),
    KD_SIMT_NAMED(cudaErrorMemoryAllocation, "out of memory"),
    KD_SIMT_NAMED(cudaErrorInitializationError, "initialization error"),
    KD_SIMT_NAMED(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    KD_SIMT_NAMED(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    KD_SIMT_NAMED(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version"),
    KD_SIMT_NAMED(cudaErrorInvalidDeviceFunction, "invalid device function"),
    KD_SIMT_NAMED(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    KD_SIMT_NAMED(cudaErrorInvalidDevice, "invalid device ordinal"),
    KD_SIMT_NAMED(cudaErrorNoKernelImageForDevice, "no kernel image is available for execution on the device"),
    KD_SIMT_NAMED(cudaErrorUnsupportedPtxVersion, "the provided PTX was compiled with an unsupported toolchain."),
    KD_SIMT_NAMED(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    KD_SIMT_NAMED(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
    KD_SIMT_NAMED(cudaErrorNotReady, "device not ready"),
    KD_SIMT_NAMED(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    KD_SIMT_NAMED(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    KD_SIMT_NAMED(cudaErrorLaunchFailure, "unspecified launch failure"),
    KD_SIMT_NAMED(cudaErrorNotSupported, "operation not supported"),
    KD_SIMT_NAMED(cudaErrorSystemDriverMismatch, "system has unsupported display driver / cuda driver combination"),
    KD_SIMT_NAMED(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    KD_SIMT_NAMED(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
    KD_SIMT_NAMED(cudaErrorStreamCaptureMerge, "operation would result in a merge of separate capture sequences"),
    KD_SIMT_NAMED(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    KD_SIMT_NAMED(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    KD_SIMT_NAMED(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream"),
    KD_SIMT_NAMED(cudaErrorStreamCaptureImplicit, "operation would make the legacy stream depend on a capturing one"),
    KD_SIMT_NAMED(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a capturing stream"),
    KD_SIMT_NAMED(cudaErrorGraphExecUpdateFailure, "the graph update was not performed: it violates a constraint"),
    KD_SIMT_NAMED(cudaErrorUnknown, "unknown error"),
};
#undef KD_SIMT_NAMED

}  // namespace

const char* cudaGetErrorName(cudaError_t code) {
  for (const named& c : codes)
    if (c.code == code) return c.name;
  return "unrecognized error code";
}
const char* cudaGetErrorString(cudaError_t code) {
  for (const named& c : codes)
    if (c.code == code) return c.text;
  return "unrecognized error code";
}
