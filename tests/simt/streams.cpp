// Streams and events: what an operation waits for.
#define KD_SIMT_RUNTIME
#include <algorithm>
#include <chrono>
#include <utility>

#include "cuda_runtime_api.h"
#include "operations.hpp"

using namespace simt;

namespace simt {

namespace {

CUstream_st default_stream;
std::vector<cudaStream_t> streams;
std::vector<cudaEvent_t> events;

template <class T>
bool contains(const std::vector<T>& all, T one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

}  // namespace

cudaStream_t stream_of(cudaStream_t handle) {
  if (handle == nullptr) return &default_stream;
  return contains(streams, handle) ? handle : nullptr;
}
const std::vector<cudaStream_t>& all_streams() { return streams; }

std::vector<operation_ptr> before_next(cudaStream_t s) {
  std::vector<operation_ptr> before{s->last};
  // The default stream and every stream that was not made non-blocking are in order with each other.
  if (s == &default_stream) {
    for (const cudaStream_t other : streams)
      if (other->blocking) before.push_back(other->last);
  } else if (s->blocking) {
    before.push_back(default_stream.last);
  }
  return before;
}

cudaError_t put(cudaStream_t handle, std::function<void()> work) {
  const cudaStream_t s = stream_of(handle);
  if (s == nullptr) return answer(cudaErrorInvalidResourceHandle);
  if (s->capturing != nullptr) {
    capture& c = *s->capturing;
    if (c.invalid) return answer(cudaErrorStreamCaptureInvalidated);
    c.nodes.push_back({std::move(work), s->tail});
    s->tail = {c.nodes.size() - 1};
    return cudaSuccess;
  }
  if (s == &default_stream && invalidate_captures()) return answer(cudaErrorStreamCaptureImplicit);
  s->last = submit(std::move(work), before_next(s));
  return cudaSuccess;
}

cudaError_t begin_call_outside_capture(const char* name) {
  const cudaError_t code = begin_call(name);
  if (code != cudaSuccess) return code;
  return answer(invalidate_captures() ? cudaErrorStreamCaptureUnsupported : cudaSuccess);
}

bool is_capturing(cudaStream_t handle) {
  const cudaStream_t s = stream_of(handle);
  return s != nullptr && s->capturing != nullptr;
}

cudaError_t synchronize(cudaStream_t handle) {
  const cudaStream_t s = stream_of(handle);
  if (s == nullptr) return answer(cudaErrorInvalidResourceHandle);
  if (s->capturing != nullptr) {
    s->capturing->invalid = true;
    return answer(cudaErrorStreamCaptureUnsupported);
  }
  run_until(s->last);
  return cudaSuccess;
}

}  // namespace simt

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  *stream = nullptr;
  const cudaError_t code = begin_call("cudaStreamCreateWithFlags");
  if (code != cudaSuccess) return code;
  if (flags > cudaStreamNonBlocking) return answer(cudaErrorInvalidValue);
  *stream = new CUstream_st;
  (*stream)->blocking = flags != cudaStreamNonBlocking;
  streams.push_back(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  const cudaError_t code = begin_call("cudaDeviceGetStreamPriorityRange");
  *least = 0;
  *greatest = -5;
  return code;
}

// What is in the stream goes on without it.
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const cudaError_t code = begin_call("cudaStreamDestroy");
  if (code != cudaSuccess) return code;
  if (!contains(streams, stream)) return answer(cudaErrorInvalidResourceHandle);
  if (stream->capturing != nullptr) stream->capturing->invalid = true;
  std::erase(streams, stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const cudaError_t code = begin_call("cudaStreamSynchronize");
  return code != cudaSuccess ? code : synchronize(stream);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return enqueue(stream, "cudaLaunchHostFunc", [function, data] { function(data); });
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const cudaError_t code = begin_call("cudaStreamQuery");
  if (code != cudaSuccess) return code;
  const cudaStream_t s = stream_of(stream);
  if (s == nullptr) return answer(cudaErrorInvalidResourceHandle);
  if (s->capturing != nullptr) return synchronize(stream);
  run_some();
  return s->last == nullptr || s->last->done() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = nullptr;
  const cudaError_t code = begin_call("cudaEventCreateWithFlags");
  if (code != cudaSuccess) return code;
  *event = new CUevent_st;
  (*event)->timed = (flags & cudaEventDisableTiming) == 0;
  events.push_back(*event);
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const cudaError_t code = begin_call("cudaEventDestroy");
  if (code != cudaSuccess) return code;
  if (!contains(events, event)) return answer(cudaErrorInvalidResourceHandle);
  std::erase(events, event);
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const cudaError_t code = begin_call("cudaEventRecord");
  if (code != cudaSuccess) return code;
  const cudaStream_t s = stream_of(stream);
  if (s == nullptr || !contains(events, event)) return answer(cudaErrorInvalidResourceHandle);
  event->captured = s->capturing;
  event->record = nullptr;
  if (s->capturing != nullptr) {
    event->tail = s->tail;
    return answer(s->capturing->invalid ? cudaErrorStreamCaptureInvalidated : cudaSuccess);
  }
  auto seconds = std::make_shared<double>(0.0);
  const cudaError_t put_code = put(stream, [seconds] {
    *seconds = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  });
  if (put_code != cudaSuccess) return put_code;
  event->seconds = std::move(seconds);
  event->record = s->last;
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const cudaError_t code = begin_call("cudaStreamWaitEvent");
  if (code != cudaSuccess) return code;
  const cudaStream_t s = stream_of(stream);
  if (s == nullptr || !contains(events, event)) return answer(cudaErrorInvalidResourceHandle);
  if (event->captured != nullptr && event->captured->active) {
    if (s->capturing != nullptr && s->capturing != event->captured) {
      s->capturing->invalid = event->captured->invalid = true;
      return answer(cudaErrorStreamCaptureMerge);
    }
    // The stream joins the capture.
    s->capturing = event->captured;
    for (const std::size_t node : event->tail)
      if (!contains(s->tail, node)) s->tail.push_back(node);
    return cudaSuccess;
  }
  if (event->captured != nullptr) return answer(cudaErrorInvalidValue);
  if (s->capturing != nullptr) {
    s->capturing->invalid = true;
    return answer(cudaErrorStreamCaptureIsolation);
  }
  if (event->record == nullptr) return cudaSuccess;  // never recorded: nothing to wait for
  std::vector<operation_ptr> before = before_next(s);
  before.push_back(event->record);
  s->last = submit({}, before);
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const cudaError_t code = begin_call("cudaEventSynchronize");
  if (code != cudaSuccess) return code;
  if (!contains(events, event)) return answer(cudaErrorInvalidResourceHandle);
  if (event->captured != nullptr) {
    if (event->captured->active) event->captured->invalid = true;
    return answer(cudaErrorCapturedEvent);
  }
  run_until(event->record);
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const cudaError_t code = begin_call("cudaEventQuery");
  if (code != cudaSuccess) return code;
  if (!contains(events, event)) return answer(cudaErrorInvalidResourceHandle);
  if (event->captured != nullptr) return answer(cudaErrorCapturedEvent);
  run_some();
  return event->record == nullptr || event->record->done() ? cudaSuccess : cudaErrorNotReady;
}

// The time that the host took: a number that a test may print and no more.
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t stop) {
  const cudaError_t code = begin_call("cudaEventElapsedTime");
  if (code != cudaSuccess) return code;
  for (const cudaEvent_t event : {start, stop})
    if (!contains(events, event) || event->record == nullptr || !event->timed)
      return answer(cudaErrorInvalidResourceHandle);
  if (!start->record->done() || !stop->record->done()) return answer(cudaErrorNotReady);
  *milliseconds = static_cast<float>((*stop->seconds - *start->seconds) * 1e3);
  return cudaSuccess;
}
