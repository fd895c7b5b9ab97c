/// Linear (fully connected) layer.
#pragma once

#include "kd/core/constexpr_math.hpp"
#include "kd/nn/layer.hpp"

namespace kd::inline KD_ABI::nn {

struct linear_options {
  bool bias = true;
  std::size_t in_features = 0;  // 0: as many as come in; otherwise checked against them
};

/// linear<OutFeatures, linear_options{...}>: [F] -> [OutFeatures]; starts as PyTorch's Linear, U(-b, b), b = 1/sqrt(F).
template <std::size_t OutFeatures, linear_options Options = linear_options{}>
struct linear : layer_base {
  static constexpr std::string_view type_name = "linear";
  static constexpr bool accumulates = true;
  static constexpr bool needs_y(fusion f) { return f == fusion::relu; }
  static constexpr bool fuses(fusion f) { return f == fusion::none || f == fusion::relu; }

  static constexpr shape output(shape in) { return in.row ? row_shape(OutFeatures) : shape{}; }
  template <shape In>
  static constexpr void check() {
    static_assert(OutFeatures > 0, "kd::nn::linear: out_features must be at least 1");
    static_assert(In.row,
                  "kd::nn::linear: the incoming shape must be a row of features: put kd::nn::flatten before it");
    if constexpr (In.row && Options.in_features != 0)
      static_assert(Options.in_features == In.channels,
                    "kd::nn::linear: in_features must equal the width of the incoming row");
  }
  static constexpr auto parameters(shape in) {
    const float bound = static_cast<float>(1 / square_root(static_cast<double>(in.channels)));
    std::array<parameter, Options.bias ? 2 : 1> all{};
    all[0] = {.name = short_name("weight"),
              .dims = {OutFeatures, in.channels, 1, 1},
              .rank = 2,
              .start = initial::uniform,
              .scale = bound};
    if constexpr (Options.bias)
      all[1] = {.name = short_name("bias"),
                .dims = {OutFeatures, 1, 1, 1},
                .rank = 1,
                .start = initial::uniform,
                .scale = bound};
    return all;
  }
  static constexpr std::size_t flops(shape in) { return 2 * in.channels * OutFeatures; }
  static constexpr std::size_t useful_flops(shape in) { return flops(in); }
  template <class Device>
  static constexpr std::size_t scratch(shape in, fusion, std::size_t batch) {
    return Device::linear_scratch(in.channels, OutFeatures, batch);
  }

  template <shape In, fusion Fused, class Device>
  static void forward(Device& device, const forward_pass& p) {
    const float* bias = Options.bias ? p.parameters + aligned_floats(In.channels * OutFeatures) : nullptr;
    device.linear_forward(In.channels, OutFeatures, p.batch, p.x, p.parameters, bias, Fused == fusion::relu, p.y);
  }
  template <shape In, fusion Fused, class Device>
  static void backward(Device& device, const backward_pass& p) {
    float* d_bias = Options.bias ? p.gradients + aligned_floats(In.channels * OutFeatures) : nullptr;
    if constexpr (Fused == fusion::relu) device.relu_backward(row_shape(OutFeatures), p.batch, p.y, p.dy, p.dy);
    device.linear_backward_weight(In.channels, OutFeatures, p.batch, p.x, p.dy, p.gradients, d_bias, p.scratch);
    if (p.dx)
      device.linear_backward_data(In.channels, OutFeatures, p.batch, p.dy, p.parameters, p.accumulate, p.dx, p.scratch);
  }
};
template <std::size_t OutFeatures, linear_options Options>
inline constexpr layer_kind kind_of<linear<OutFeatures, Options>> = layer_kind::linear;

}  // namespace kd::inline KD_ABI::nn
