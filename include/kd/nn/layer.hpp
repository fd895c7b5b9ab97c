/// What a layer is: a type with static members, bound to no shape and no device.
///
/// A layer of your own derives from `layer_base` and needs `output`, `forward` and `backward`; everything else has a
/// default. `output` gives the empty shape for an input that the layer does not accept. It sees activations in the
/// device's layout: elementwise layers work on the flat range, others ask the device for an index.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "kd/core/error.hpp"
#include "kd/core/random.hpp"
#include "kd/core/shape.hpp"
#include "kd/core/static_text.hpp"

namespace kd::inline KD_ABI::nn {

/// Known layers take part in fusion; `other` is anything that a user writes.
enum class layer_kind { conv2d, linear, batch_norm2d, relu, max_pool2d, avg_pool2d, dropout, flatten, add, other };

/// What the plan has merged into a layer, behind its own operation.
enum class fusion { none, relu, relu_pool, add, add_relu };

/// How a parameter starts; `scale` is the bound of `uniform` and the standard deviation of `normal`.
enum class initial { zeros, ones, uniform, normal };

/// One tensor of a layer. `dims` is the shape in PyTorch's order; a weight of rank 4, [out,in,kh,kw], is stored as
/// [out][kh][kw][in] on every device.
struct parameter {
  short_name name;
  std::array<std::size_t, 4> dims{1, 1, 1, 1};
  std::size_t rank = 1;
  initial start = initial::zeros;
  float scale = 0;
  bool trainable = true;  // false: a running statistic, kept in the network's state

  constexpr std::size_t size() const { return dims[0] * dims[1] * dims[2] * dims[3]; }
};

/// Sizes rounded up to multiples of 16 bytes: what lies next begins where vectors may be loaded, and where cuDNN takes
/// a pointer.
constexpr std::size_t aligned_floats(std::size_t floats) { return (floats + 3) / 4 * 4; }

/// What a layer gets for its forward pass; pointers are in the device's memory and layout.
struct forward_pass {
  std::size_t batch;
  bool training;
  const float* x;
  const float* residual;  // second operand of a fused add
  float* y;
  const float* parameters;  // trainable tensors in the order of parameters(), each aligned_floats(size()) long
  float* state;             // running statistics, likewise
  float* saved;             // saved_per_sample() floats a sample, kept for backward
  float* saved_fixed;       // saved_fixed() floats, kept for backward
  float* scratch;
  step_random random;
  std::uint32_t random_layer;  // tells the layers that draw random numbers apart
};

/// What a layer gets for its backward pass. Gradients are overwritten, or added to dx where `accumulate` is set.
struct backward_pass {
  std::size_t batch;
  const float* x;
  const float* y;
  float* dy;          // may be overwritten: nobody reads it afterwards
  float* dx;          // null where nobody needs it
  float* d_residual;  // gradient of the second operand of a fused add
  const float* parameters;
  float* gradients;
  float* saved;
  float* saved_fixed;
  float* scratch;
  bool accumulate;
  step_random random;
  std::uint32_t random_layer;
};

/// The kind of a layer type: each layer of this folder says it beside itself. A type derived from one of them is
/// `other`, since its own forward and backward would be lost where the base's are merged into another layer.
template <class Layer>
inline constexpr layer_kind kind_of = layer_kind::other;

/// Defaults of a layer.
struct layer_base {
  static constexpr std::string_view type_name = "layer";
  static constexpr bool accumulates = false;  // backward honours backward_pass::accumulate
  static constexpr bool draws_random = false;

  /// Whether backward reads the input, or the output: what it does not read is not kept.
  static constexpr bool needs_x(fusion) { return true; }
  static constexpr bool needs_y(fusion) { return true; }
  /// Whether forward and backward do what is merged into the layer.
  static constexpr bool fuses(fusion f) { return f == fusion::none; }
  /// Static assertions about the incoming shape.
  template <shape In>
  static constexpr void check() {}
  static constexpr std::array<parameter, 0> parameters(shape) { return {}; }
  /// What a layer's template arguments decide beside its shapes, "stride 2, padding 1": part of a run's recipe, so that
  /// a run does not go on with another network of the same shapes.
  static std::string settings() { return {}; }
  static constexpr std::size_t saved_per_sample(shape, fusion) { return 0; }  // in floats
  static constexpr std::size_t saved_fixed(shape, fusion) { return 0; }       // in floats
  /// Floating-point operations of one sample's forward pass: all, and those whose operands are not padding.
  static constexpr std::size_t flops(shape) { return 0; }
  static constexpr std::size_t useful_flops(shape) { return 0; }
  template <class Device>
  static constexpr std::size_t scratch(shape, fusion, std::size_t /*batch*/) {
    return 0;
  }
};

/// Whether a network may hold T. Its forward and backward are templates over the device and cannot be asked for here.
template <class T>
concept layer_type = std::derived_from<T, layer_base> && requires(shape in) {
  { T::output(in) } -> std::same_as<shape>;
};

}  // namespace kd::inline KD_ABI::nn
