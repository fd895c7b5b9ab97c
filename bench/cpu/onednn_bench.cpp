/// The same convolutions with oneDNN in its own best layout, as a peer: <pass>/onednn/<layer>. Compare with
/// conv2d_bench. Built where oneDNN is found (KD_ONEDNN); GFLOP/s count useful operations, so that times compare
/// directly.
#include <benchmark/benchmark.h>

#if KD_BENCH_ONEDNN

#include <dnnl.hpp>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cpu/conv2d_layers.hpp"

namespace {

using dnnl::memory;

struct convolution {
  explicit convolution(const conv2d_geometry& g)
      : x({count, size(g.in_channels), size(g.in_height), size(g.in_width)}, memory::data_type::f32,
          memory::format_tag::any),
        w({size(g.out_channels), size(g.in_channels), size(g.kernel_h), size(g.kernel_w)}, memory::data_type::f32,
          memory::format_tag::any),
        y({count, size(g.out_channels), size(g.out_height()), size(g.out_width())}, memory::data_type::f32,
          memory::format_tag::any),
        strides{size(g.stride_h), size(g.stride_w)},
        padding{size(g.padding_h), size(g.padding_w)},
        forward({dnnl::prop_kind::forward_training, dnnl::algorithm::convolution_direct, x, w, y, strides, padding,
                 padding},
                cpu),
        backward_data({dnnl::algorithm::convolution_direct, x, w, y, strides, padding, padding}, cpu, forward),
        backward_weight({dnnl::algorithm::convolution_direct, x, w, y, strides, padding, padding}, cpu, forward) {}

  static constexpr memory::dim count = static_cast<memory::dim>(batch);
  static memory::dim size(std::size_t n) { return static_cast<memory::dim>(n); }

  dnnl::engine cpu{dnnl::engine::kind::cpu, 0};
  memory::desc x, w, y;
  memory::dims strides, padding;
  dnnl::convolution_forward::primitive_desc forward;
  dnnl::convolution_backward_data::primitive_desc backward_data;
  dnnl::convolution_backward_weights::primitive_desc backward_weight;
};

using arguments = std::vector<std::pair<int, memory::desc>>;

void run(benchmark::State& state, const convolution& c, const dnnl::primitive& pass, const arguments& needed,
         const conv2d_geometry& g) {
  dnnl::stream stream(c.cpu);
  std::unordered_map<int, memory> given;
  for (const auto& [which, layout] : needed) {
    memory m(layout, c.cpu);
    auto* data = static_cast<float*>(m.get_data_handle());
    for (std::size_t i = 0; i < layout.get_size() / sizeof(float); ++i)
      data[i] = static_cast<float>(i % 13) * 0.1f - 0.6f;
    given.emplace(which, m);
  }
  for (auto _ : state) {
    pass.execute(stream, given);
    stream.wait();
  }
  state.counters["FLOP/s"] =
      benchmark::Counter(operations(g) * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

const bool registered = [] {
  for (const layer& l : layers) {
    const conv2d_geometry g = l.g;
    benchmark::RegisterBenchmark((std::string("forward/onednn/") + l.name).c_str(), [g](benchmark::State& state) {
      const convolution c(g);
      run(state, c, dnnl::convolution_forward(c.forward),
          {{DNNL_ARG_SRC, c.forward.src_desc()},
           {DNNL_ARG_WEIGHTS, c.forward.weights_desc()},
           {DNNL_ARG_DST, c.forward.dst_desc()}},
          g);
    })->UseRealTime();
    benchmark::RegisterBenchmark((std::string("backward_data/onednn/") + l.name).c_str(), [g](benchmark::State& state) {
      const convolution c(g);
      run(state, c, dnnl::convolution_backward_data(c.backward_data),
          {{DNNL_ARG_DIFF_DST, c.backward_data.diff_dst_desc()},
           {DNNL_ARG_WEIGHTS, c.backward_data.weights_desc()},
           {DNNL_ARG_DIFF_SRC, c.backward_data.diff_src_desc()}},
          g);
    })->UseRealTime();
    benchmark::RegisterBenchmark((std::string("backward_weight/onednn/") + l.name).c_str(),
                                 [g](benchmark::State& state) {
                                   const convolution c(g);
                                   run(state, c, dnnl::convolution_backward_weights(c.backward_weight),
                                       {{DNNL_ARG_DIFF_DST, c.backward_weight.diff_dst_desc()},
                                        {DNNL_ARG_SRC, c.backward_weight.src_desc()},
                                        {DNNL_ARG_DIFF_WEIGHTS, c.backward_weight.diff_weights_desc()}},
                                       g);
                                 })
        ->UseRealTime();
  }
  return true;
}();

}  // namespace

#endif
