/// 2-d convolution (cross-correlation, as in PyTorch), with bias or none.
#pragma once

#include "kd/core/constexpr_math.hpp"
#include "kd/nn/layer.hpp"

namespace kd::inline KD_ABI::nn {

/// Where initial weights come from.
enum class conv_initial {
  uniform_fan_in,          // PyTorch's default: U(-b, b), b = 1 / sqrt(fan in), for weight and bias
  kaiming_normal_fan_out,  // torchvision's ResNets: N(0, 2 / (out_channels * kernel^2)); He et al. 2015, eq. 14
};

struct conv_options {
  std::size_t stride = 1;
  std::size_t padding = 0;
  bool bias = true;
  conv_initial initial = conv_initial::uniform_fan_in;
};

/// conv2d<OutChannels, Kernel, conv_options{...}>: [C,H,W] -> [OutChannels,OH,OW].
template <std::size_t OutChannels, std::size_t Kernel, conv_options Options = conv_options{}>
struct conv2d : layer_base {
  static constexpr std::string_view type_name = "conv2d";
  static constexpr bool accumulates = true;
  static constexpr bool needs_y(fusion f) { return f == fusion::relu; }
  static constexpr bool fuses(fusion f) { return f == fusion::none || f == fusion::relu || f == fusion::relu_pool; }

  static constexpr conv2d_geometry geometry(shape in) {
    return {.in_channels = in.channels,
            .in_height = in.height,
            .in_width = in.width,
            .out_channels = OutChannels,
            .kernel_h = Kernel,
            .kernel_w = Kernel,
            .stride_h = Options.stride,
            .stride_w = Options.stride,
            .padding_h = Options.padding,
            .padding_w = Options.padding};
  }
  static constexpr shape output(shape in) {
    if (in.row || Options.stride == 0 || in.height + 2 * Options.padding < Kernel ||
        in.width + 2 * Options.padding < Kernel)
      return {};
    return geometry(in).out();
  }
  template <shape In>
  static constexpr void check() {
    static_assert(OutChannels > 0, "kd::nn::conv2d: out_channels must be at least 1");
    static_assert(Kernel > 0, "kd::nn::conv2d: the kernel must be at least 1");
    static_assert(
        Options.initial == conv_initial::uniform_fan_in || Options.initial == conv_initial::kaiming_normal_fan_out,
        "kd::nn::conv2d: initial must be uniform_fan_in or kaiming_normal_fan_out");
    static_assert(Options.stride > 0, "kd::nn::conv2d: the stride must be at least 1");
    static_assert(!In.row, "kd::nn::conv2d: the incoming shape must be an image, not a row of features");
    if constexpr (!In.row) {
      static_assert(In.height + 2 * Options.padding >= Kernel,
                    "kd::nn::conv2d: the incoming height plus padding must be at least the kernel");
      if constexpr (In.height + 2 * Options.padding >= Kernel)
        static_assert(In.width + 2 * Options.padding >= Kernel,
                      "kd::nn::conv2d: the incoming width plus padding must be at least the kernel");
    }
  }
  static constexpr auto parameters(shape in) {
    const std::size_t fan_in = in.channels * Kernel * Kernel;
    const float bound = static_cast<float>(1 / square_root(static_cast<double>(fan_in)));
    const float deviation = static_cast<float>(square_root(2.0 / static_cast<double>(OutChannels * Kernel * Kernel)));
    const bool normal = Options.initial == conv_initial::kaiming_normal_fan_out;
    std::array<parameter, Options.bias ? 2 : 1> all{};
    all[0] = {.name = short_name("weight"),
              .dims = {OutChannels, in.channels, Kernel, Kernel},
              .rank = 4,
              .start = normal ? nn::initial::normal : nn::initial::uniform,
              .scale = normal ? deviation : bound};
    if constexpr (Options.bias)
      all[1] = {.name = short_name("bias"),
                .dims = {OutChannels, 1, 1, 1},
                .rank = 1,
                .start = nn::initial::uniform,
                .scale = bound};
    return all;
  }
  static std::string settings() {
    return text("kernel ", Kernel, ", stride ", Options.stride, ", padding ", Options.padding);
  }
  static constexpr std::size_t saved_per_sample(shape in, fusion f) {
    // One byte for each pooled element: where the maximum was.
    return f == fusion::relu_pool ? (output(in).size() / 4 + 3) / 4 : 0;
  }
  static constexpr std::size_t flops(shape in) { return 2 * in.channels * Kernel * Kernel * output(in).size(); }
  static constexpr std::size_t useful_flops(shape in) {
    const conv2d_geometry g = geometry(in);
    const auto along = [](std::size_t size, std::size_t outs) {
      std::size_t pairs = 0;
      for (std::size_t o = 0; o < outs; ++o)
        pairs += live_taps(o, size, Kernel, Options.stride, Options.padding).size();
      return pairs;
    };
    return 2 * in.channels * OutChannels * along(in.height, g.out_height()) * along(in.width, g.out_width());
  }
  template <class Device>
  static constexpr std::size_t scratch(shape in, fusion, std::size_t batch) {
    return Device::conv2d_scratch(geometry(in), batch);
  }

  template <shape In, fusion Fused, class Device>
  static void forward(Device& device, const forward_pass& p) {
    constexpr conv2d_geometry g = geometry(In);
    const float* bias = Options.bias ? p.parameters + aligned_floats(g.weights()) : nullptr;
    if constexpr (Fused == fusion::relu_pool)
      device.conv2d_relu_pool_forward(g, p.batch, p.x, p.parameters, bias, p.y, p.saved);
    else
      device.conv2d_forward(g, p.batch, p.x, p.parameters, bias, Fused == fusion::relu, p.y);
  }
  template <shape In, fusion Fused, class Device>
  static void backward(Device& device, const backward_pass& p) {
    constexpr conv2d_geometry g = geometry(In);
    float* d_bias = Options.bias ? p.gradients + aligned_floats(g.weights()) : nullptr;
    if constexpr (Fused == fusion::relu_pool) {
      device.conv2d_relu_pool_backward_weight(g, p.batch, p.x, p.dy, p.saved, p.gradients, d_bias, p.scratch);
      if (p.dx)
        device.conv2d_relu_pool_backward_data(g, p.batch, p.dy, p.saved, p.parameters, p.accumulate, p.dx, p.scratch);
    } else {
      if constexpr (Fused == fusion::relu) device.relu_backward(g.out(), p.batch, p.y, p.dy, p.dy);
      device.conv2d_backward_weight(g, p.batch, p.x, p.dy, p.gradients, d_bias, p.scratch);
      if (p.dx) device.conv2d_backward_data(g, p.batch, p.dy, p.parameters, p.accumulate, p.dx, p.scratch);
    }
  }
};
template <std::size_t OutChannels, std::size_t Kernel, conv_options Options>
inline constexpr layer_kind kind_of<conv2d<OutChannels, Kernel, Options>> = layer_kind::conv2d;

}  // namespace kd::inline KD_ABI::nn
