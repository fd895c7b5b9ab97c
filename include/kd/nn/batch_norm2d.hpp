/// Batch normalisation over the pixels and samples of each channel. Ioffe, Szegedy 2015, algorithm 1.
#pragma once

#include "kd/nn/layer.hpp"

namespace kd::inline KD_ABI::nn {

struct batch_norm_options {
  float epsilon = 1e-5f;
  float momentum = 0.1f;  // running = (1 - momentum) running + momentum batch, as in PyTorch
};

/// batch_norm2d<batch_norm_options{...}>: [C,H,W] -> [C,H,W]. Trains on the batch's statistics (biased variance) and
/// evaluates on the running ones (unbiased variance).
template <batch_norm_options Options = batch_norm_options{}>
struct batch_norm2d : layer_base {
  static constexpr std::string_view type_name = "batch_norm2d";
  static constexpr bool needs_y(fusion f) { return f == fusion::relu || f == fusion::add_relu; }
  static constexpr bool fuses(fusion f) {
    return f == fusion::none || f == fusion::relu || f == fusion::add || f == fusion::add_relu;
  }

  static constexpr shape output(shape in) { return in.row ? shape{} : in; }
  template <shape In>
  static constexpr void check() {
    static_assert(!In.row, "kd::nn::batch_norm2d: the incoming shape must be an image, not a row of features");
  }
  static constexpr auto parameters(shape in) {
    const auto per_channel = [&](const char* name, initial start, bool trainable) {
      return parameter{
          .name = short_name(name), .dims = {in.channels, 1, 1, 1}, .rank = 1, .start = start, .trainable = trainable};
    };
    return std::array<parameter, 4>{
        per_channel("weight", initial::ones, true), per_channel("bias", initial::zeros, true),
        per_channel("running_mean", initial::zeros, false), per_channel("running_var", initial::ones, false)};
  }
  static std::string settings() { return text("epsilon ", Options.epsilon, ", momentum ", Options.momentum); }
  static constexpr std::size_t saved_fixed(shape in, fusion) { return 2 * in.channels; }  // mean, 1 / deviation
  static constexpr std::size_t flops(shape in) { return 2 * in.size(); }
  static constexpr std::size_t useful_flops(shape in) { return flops(in); }
  template <class Device>
  static constexpr std::size_t scratch(shape in, fusion, std::size_t batch) {
    return Device::batch_norm2d_scratch(in, batch);
  }

  template <shape In, fusion Fused, class Device>
  static void forward(Device& device, const forward_pass& p) {
    constexpr bool with_relu = Fused == fusion::relu || Fused == fusion::add_relu;
    const float* gamma = p.parameters;
    const float* beta = gamma + aligned_floats(In.channels);
    float* mean = p.state;
    float* variance = mean + aligned_floats(In.channels);
    if (p.training)
      device.batch_norm2d_forward_train(In, p.batch, p.x, gamma, beta, Options.epsilon, Options.momentum, p.residual,
                                        with_relu, p.y, p.saved_fixed, p.saved_fixed + In.channels, mean, variance,
                                        p.scratch);
    else
      device.batch_norm2d_forward_infer(In, p.batch, p.x, gamma, beta, mean, variance, Options.epsilon, p.residual,
                                        with_relu, p.y);
  }
  template <shape In, fusion Fused, class Device>
  static void backward(Device& device, const backward_pass& p) {
    constexpr bool with_relu = Fused == fusion::relu || Fused == fusion::add_relu;
    device.batch_norm2d_backward(In, p.batch, p.x, p.y, p.dy, p.parameters, p.saved_fixed, p.saved_fixed + In.channels,
                                 with_relu, p.d_residual, p.dx, p.gradients, p.gradients + aligned_floats(In.channels),
                                 p.scratch);
  }
};
template <batch_norm_options Options>
inline constexpr layer_kind kind_of<batch_norm2d<Options>> = layer_kind::batch_norm2d;

}  // namespace kd::inline KD_ABI::nn
