/// Max pooling and global average pooling.
#pragma once

#include "kd/nn/layer.hpp"

namespace kd::inline KD_ABI::nn {

struct pool_options {
  std::size_t stride = 0;  // 0: the kernel
  std::size_t padding = 0;
};

/// max_pool2d<Kernel, pool_options{...}>: [C,H,W] -> [C,OH,OW]; of equal values the first of the window wins.
template <std::size_t Kernel, pool_options Options = pool_options{}>
struct max_pool2d : layer_base {
  static constexpr std::string_view type_name = "max_pool2d";
  static constexpr std::size_t stride = Options.stride == 0 ? Kernel : Options.stride;
  static constexpr std::size_t padding = Options.padding;
  static constexpr std::size_t kernel = Kernel;
  static constexpr bool needs_x(fusion) { return false; }
  static constexpr bool needs_y(fusion) { return false; }

  static constexpr pool2d_geometry geometry(shape in) {
    return {.channels = in.channels,
            .in_height = in.height,
            .in_width = in.width,
            .kernel = Kernel,
            .stride = stride,
            .padding = padding};
  }
  static constexpr shape output(shape in) {
    if (in.row || stride == 0 || in.height + 2 * padding < Kernel || in.width + 2 * padding < Kernel) return {};
    return geometry(in).out();
  }
  template <shape In>
  static constexpr void check() {
    static_assert(Kernel > 0 && Kernel <= 15, "kd::nn::max_pool2d: the kernel must be between 1 and 15");
    static_assert(2 * padding <= Kernel, "kd::nn::max_pool2d: twice the padding must be at most the kernel");
    static_assert(!In.row, "kd::nn::max_pool2d: the incoming shape must be an image, not a row of features");
    if constexpr (!In.row) {
      static_assert(In.height + 2 * padding >= Kernel,
                    "kd::nn::max_pool2d: the incoming height plus padding must be at least the kernel");
      if constexpr (In.height + 2 * padding >= Kernel)
        static_assert(In.width + 2 * padding >= Kernel,
                      "kd::nn::max_pool2d: the incoming width plus padding must be at least the kernel");
    }
  }
  static std::string settings() { return text("kernel ", Kernel, ", stride ", stride, ", padding ", padding); }
  static constexpr std::size_t saved_per_sample(shape in, fusion) { return (output(in).size() + 3) / 4; }

  template <shape In, fusion, class Device>
  static void forward(Device& device, const forward_pass& p) {
    device.max_pool2d_forward(geometry(In), p.batch, p.x, p.y, p.saved);
  }
  template <shape In, fusion, class Device>
  static void backward(Device& device, const backward_pass& p) {
    device.max_pool2d_backward(geometry(In), p.batch, p.dy, p.saved, p.dx);
  }
};
template <std::size_t Kernel, pool_options Options>
inline constexpr layer_kind kind_of<max_pool2d<Kernel, Options>> = layer_kind::max_pool2d;

/// The mean over all pixels of each channel: [C,H,W] -> [C,1,1].
struct global_avg_pool2d : layer_base {
  static constexpr std::string_view type_name = "global_avg_pool2d";
  static constexpr bool needs_x(fusion) { return false; }
  static constexpr bool needs_y(fusion) { return false; }
  static constexpr shape output(shape in) { return in.row ? shape{} : image_shape(in.channels, 1, 1); }
  template <shape In>
  static constexpr void check() {
    static_assert(!In.row, "kd::nn::global_avg_pool2d: the incoming shape must be an image, not a row of features");
  }
  static constexpr std::size_t flops(shape in) { return in.size(); }
  static constexpr std::size_t useful_flops(shape in) { return flops(in); }

  template <shape In, fusion, class Device>
  static void forward(Device& device, const forward_pass& p) {
    device.global_avg_pool2d_forward(In, p.batch, p.x, p.y);
  }
  template <shape In, fusion, class Device>
  static void backward(Device& device, const backward_pass& p) {
    device.global_avg_pool2d_backward(In, p.batch, p.dy, p.dx);
  }
};
template <>
inline constexpr layer_kind kind_of<global_avg_pool2d> = layer_kind::avg_pool2d;

}  // namespace kd::inline KD_ABI::nn
