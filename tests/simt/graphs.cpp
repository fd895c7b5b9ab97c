// Captures and graphs: work that is kept with its order instead of being submitted.
#define KD_SIMT_RUNTIME
#include <algorithm>
#include <utility>

#include "cuda_runtime_api.h"
#include "operations.hpp"

using namespace simt;

namespace simt {

namespace {

// Ends a capture for all streams that take part in it.
void end(capture& c) {
  c.active = false;
  for (const cudaStream_t s : all_streams())
    if (s->capturing.get() == &c) {
      s->capturing = nullptr;
      s->tail.clear();
    }
}

// Whether every node comes before the end of the stream where the capture began.
bool all_joined(const capture& c, const std::vector<std::size_t>& tail) {
  std::vector<bool> reached(c.nodes.size(), false);
  std::vector<std::size_t> left = tail;
  while (!left.empty()) {
    const std::size_t node = left.back();
    left.pop_back();
    if (reached[node]) continue;
    reached[node] = true;
    left.insert(left.end(), c.nodes[node].after.begin(), c.nodes[node].after.end());
  }
  return std::find(reached.begin(), reached.end(), false) == reached.end();
}

// Nodes that no other follows.
std::vector<std::size_t> last_nodes(const std::vector<graph_node>& nodes) {
  std::vector<bool> followed(nodes.size(), false);
  for (const graph_node& node : nodes)
    for (const std::size_t before : node.after) followed[before] = true;
  std::vector<std::size_t> last;
  for (std::size_t i = 0; i < nodes.size(); ++i)
    if (!followed[i]) last.push_back(i);
  return last;
}

}  // namespace

bool invalidate_captures() {
  bool any = false;
  for (const cudaStream_t s : all_streams())
    if (s->capturing != nullptr && s->capturing->mode != cudaStreamCaptureModeRelaxed)
      any = s->capturing->invalid = true;
  return any;
}

void drop_captures() {
  for (const cudaStream_t s : all_streams())
    if (s->capturing != nullptr) end(*std::shared_ptr<capture>(s->capturing));
}

}  // namespace simt

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const cudaError_t code = begin_call("cudaStreamBeginCapture");
  if (code != cudaSuccess) return code;
  // The default stream cannot be captured.
  if (stream == nullptr) return answer(cudaErrorStreamCaptureUnsupported);
  const cudaStream_t s = stream_of(stream);
  if (s == nullptr) return answer(cudaErrorInvalidResourceHandle);
  if (s->capturing != nullptr) return answer(cudaErrorIllegalState);
  s->capturing = std::make_shared<capture>();
  s->capturing->origin = s;
  s->capturing->mode = mode;
  s->tail.clear();
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  const cudaError_t code = begin_call("cudaStreamEndCapture");
  if (code != cudaSuccess) return code;
  const cudaStream_t s = stream_of(stream);
  if (s == nullptr) return answer(cudaErrorInvalidResourceHandle);
  if (s->capturing == nullptr) return answer(cudaErrorIllegalState);
  if (s->capturing->origin != s) {
    s->capturing->invalid = true;
    return answer(cudaErrorStreamCaptureUnmatched);
  }
  const std::shared_ptr<capture> c = s->capturing;
  const bool joined = all_joined(*c, s->tail);
  end(*c);
  if (c->invalid) return answer(cudaErrorStreamCaptureInvalidated);
  if (!joined) return answer(cudaErrorStreamCaptureUnjoined);
  *graph = new CUgraph_st{std::move(c->nodes)};
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const cudaError_t code = begin_call("cudaStreamIsCapturing");
  if (code != cudaSuccess) return code;
  const cudaStream_t s = stream_of(stream);
  if (s == nullptr) return answer(cudaErrorInvalidResourceHandle);
  *status = s->capturing == nullptr ? cudaStreamCaptureStatusNone
            : s->capturing->invalid ? cudaStreamCaptureStatusInvalidated
                                    : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

/// The number of nodes alone: what they are is not told.
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, std::size_t* count) {
  const cudaError_t code = begin_call("cudaGraphGetNodes");
  if (code != cudaSuccess) return code;
  if (graph == nullptr || nodes != nullptr) return answer(cudaErrorInvalidValue);
  *count = graph->nodes.size();
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  const cudaError_t code = begin_call("cudaGraphDestroy");
  if (graph == nullptr) return answer(cudaErrorInvalidValue);
  delete graph;
  return code;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = nullptr;
  const cudaError_t code = begin_call("cudaGraphInstantiate");
  if (code != cudaSuccess) return code;
  if (graph == nullptr) return answer(cudaErrorInvalidValue);
  *executable = new CUgraphExec_st{graph->nodes, nullptr};
  return cudaSuccess;
}

// Nodes may change what they do, but not their number and order.
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t executable, cudaGraph_t graph, cudaGraphExecUpdateResultInfo* result) {
  const cudaError_t code = begin_call("cudaGraphExecUpdate");
  if (code != cudaSuccess) return code;
  if (executable == nullptr || graph == nullptr || result == nullptr) return answer(cudaErrorInvalidValue);
  const bool same =
      std::equal(executable->nodes.begin(), executable->nodes.end(), graph->nodes.begin(), graph->nodes.end(),
                 [](const graph_node& a, const graph_node& b) { return a.after == b.after; });
  *result = {same ? cudaGraphExecUpdateSuccess : cudaGraphExecUpdateError, nullptr, nullptr};
  if (!same) return answer(cudaErrorGraphExecUpdateFailure);
  executable->nodes = graph->nodes;
  return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t stream) {
  const cudaError_t code = begin_call("cudaGraphUpload");
  if (code != cudaSuccess) return code;
  if (executable == nullptr) return answer(cudaErrorInvalidValue);
  return answer(stream_of(stream) == nullptr ? cudaErrorInvalidResourceHandle : cudaSuccess);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  const cudaError_t code = begin_call("cudaGraphLaunch");
  if (code != cudaSuccess) return code;
  if (executable == nullptr) return answer(cudaErrorInvalidValue);
  const cudaStream_t s = stream_of(stream);
  if (s == nullptr) return answer(cudaErrorInvalidResourceHandle);
  if (s->capturing != nullptr) {  // becomes part of the graph that is captured
    std::vector<graph_node>& nodes = s->capturing->nodes;
    const std::size_t first = nodes.size();
    for (const graph_node& node : executable->nodes) {
      nodes.push_back(node);
      if (node.after.empty()) nodes.back().after = s->tail;
      for (std::size_t i = 0; i < node.after.size(); ++i) nodes.back().after[i] = first + node.after[i];
    }
    if (!executable->nodes.empty()) s->tail.clear();
    for (const std::size_t node : last_nodes(executable->nodes)) s->tail.push_back(first + node);
    return cudaSuccess;
  }
  // A launch begins after what is in the stream, and after the executable graph's launch before it.
  std::vector<operation_ptr> entry = before_next(s);
  entry.push_back(executable->last);
  const operation_ptr begin = submit({}, entry);
  std::vector<operation_ptr> submitted;
  submitted.reserve(executable->nodes.size());
  for (const graph_node& node : executable->nodes) {
    std::vector<operation_ptr> before;
    for (const std::size_t i : node.after) before.push_back(submitted[i]);
    if (before.empty()) before.push_back(begin);
    submitted.push_back(submit(node.work, before));
  }
  std::vector<operation_ptr> ends{begin};
  for (const std::size_t node : last_nodes(executable->nodes)) ends.push_back(submitted[node]);
  s->last = executable->last = submit({}, ends);
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  const cudaError_t code = begin_call("cudaGraphExecDestroy");
  if (executable == nullptr) return answer(cudaErrorInvalidValue);
  delete executable;  // launches that wait hold copies of the work
  return code;
}
