/// What waits in streams: operations and the order between them. Internal to the emulator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuda_runtime_api.h"

namespace simt {

/// Something that a device does, after the operations that it waits for.
struct operation {
  std::function<void()> work;  // may be empty
  std::size_t waits_for = 0;
  std::vector<std::shared_ptr<operation>> then;
  std::uint64_t generation = 0;
  bool finished = false;

  bool done() const;
};
using operation_ptr = std::shared_ptr<operation>;

/// Adds an operation that waits for those given (null ones are passed over). It does not run yet.
operation_ptr submit(std::function<void()> work, const std::vector<operation_ptr>& after);
/// Runs operations in random order until this one is done, or until none is left; throws what one of them threw, and
/// then drops all the others.
void run_until(const operation_ptr& wanted);
void run_all();
/// Runs one operation, if there is one.
void run_some();
void drop_all();
/// Whether an operation runs at this moment.
bool operating();

/// Work of a graph with the nodes before it.
struct graph_node {
  std::function<void()> work;
  std::vector<std::size_t> after;
};

/// A capture in progress: the graph that grows and what has joined it.
struct capture {
  std::vector<graph_node> nodes;
  cudaStream_t origin = nullptr;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  bool invalid = false;
  bool active = true;
};

/// An error that arose where none could be thrown, for the next call that synchronises.
void keep_error(std::exception_ptr why);
void throw_kept_error();

/// Notes the code as the last error.
cudaError_t answer(cudaError_t code);
/// What every call begins with: an injected failure, no device, a driver that is too old.
cudaError_t begin_call(const char* name);
/// As begin_call, for calls that no capture in progress allows.
cudaError_t begin_call_outside_capture(const char* name);
/// Adds work to the stream, or to the graph that it is captured into.
cudaError_t put(cudaStream_t stream, std::function<void()> work);
bool is_capturing(cudaStream_t stream);
/// The stream itself, the default one for null; null where there is no such stream.
cudaStream_t stream_of(cudaStream_t handle);
/// All streams but the default one.
const std::vector<cudaStream_t>& all_streams();
/// What the next operation of a stream waits for.
std::vector<operation_ptr> before_next(cudaStream_t stream);
/// Spoils the captures in progress, but for relaxed ones; whether there were any.
bool invalidate_captures();
void drop_captures();
/// Waits for the stream; throws what its operations threw.
cudaError_t synchronize(cudaStream_t stream);

}  // namespace simt

/// Streams may be destroyed while their operations wait, so that those never refer to them.
struct CUstream_st {
  bool blocking = true;  // in order with the default stream
  simt::operation_ptr last;
  std::shared_ptr<simt::capture> capturing;
  std::vector<std::size_t> tail;  // nodes of the capture that the next one follows
};
struct CUevent_st {
  bool timed = true;
  simt::operation_ptr record;
  std::shared_ptr<double> seconds;  // when the record ran
  std::shared_ptr<simt::capture> captured;
  std::vector<std::size_t> tail;
};
struct CUgraph_st {
  std::vector<simt::graph_node> nodes;
};
struct CUgraphExec_st {
  std::vector<simt::graph_node> nodes;
  simt::operation_ptr last;  // the end of its last launch
};
