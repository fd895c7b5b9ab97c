/// Layers without parameters that keep the number of elements: relu, dropout, flatten, and the residual sum.
#pragma once

#include "kd/nn/layer.hpp"

namespace kd::inline KD_ABI::nn {

/// max(x, 0); the gradient at 0 is 0, as in PyTorch.
struct relu : layer_base {
  static constexpr std::string_view type_name = "relu";
  static constexpr bool needs_x(fusion) { return false; }
  static constexpr shape output(shape in) { return in; }

  template <shape In, fusion, class Device>
  static void forward(Device& device, const forward_pass& p) {
    device.relu_forward(In, p.batch, p.x, p.y);
  }
  template <shape In, fusion, class Device>
  static void backward(Device& device, const backward_pass& p) {
    device.relu_backward(In, p.batch, p.y, p.dy, p.dx);
  }
};
template <>
inline constexpr layer_kind kind_of<relu> = layer_kind::relu;

/// Sets each element to 0 with probability P in training and scales the rest by 1 / (1 - P). Srivastava et al. 2014.
/// The mask is a function of (seed, step, layer, element): it is not stored, and it is equal on every device.
template <float P>
struct dropout : layer_base {
  static constexpr std::string_view type_name = "dropout";
  static constexpr bool draws_random = true;
  static constexpr bool needs_x(fusion) { return false; }
  static constexpr bool needs_y(fusion) { return false; }
  static constexpr shape output(shape in) { return in; }
  template <shape In>
  static constexpr void check() {
    static_assert(P >= 0.0f && P < 1.0f, "kd::nn::dropout: the probability must be at least 0 and below 1");
  }
  static std::string settings() { return text(P); }

  template <shape In, fusion, class Device>
  static void forward(Device& device, const forward_pass& p) {
    if (p.training)
      device.dropout(In, p.batch, P, p.random, p.random_layer, p.x, p.y);
    else
      device.copy(In, p.batch, p.x, p.y);
  }
  template <shape In, fusion, class Device>
  static void backward(Device& device, const backward_pass& p) {
    device.dropout(In, p.batch, P, p.random, p.random_layer, p.dy, p.dx);
  }
};
template <float P>
inline constexpr layer_kind kind_of<dropout<P>> = layer_kind::dropout;

/// [C,H,W] -> [C*H*W], in PyTorch's order.
struct flatten : layer_base {
  static constexpr std::string_view type_name = "flatten";
  static constexpr bool needs_x(fusion) { return false; }
  static constexpr bool needs_y(fusion) { return false; }
  static constexpr shape output(shape in) { return row_shape(in.size()); }

  template <shape In, fusion, class Device>
  static void forward(Device& device, const forward_pass& p) {
    device.flatten_forward(In, p.batch, p.x, p.y);
  }
  template <shape In, fusion, class Device>
  static void backward(Device& device, const backward_pass& p) {
    device.flatten_backward(In, p.batch, p.dy, p.dx);
  }
};
template <>
inline constexpr layer_kind kind_of<flatten> = layer_kind::flatten;

/// The sum that closes a residual block; the tracer puts it there, nobody writes it.
struct add : layer_base {
  static constexpr std::string_view type_name = "add";
  static constexpr bool needs_x(fusion) { return false; }
  static constexpr bool needs_y(fusion) { return false; }
  static constexpr shape output(shape in) { return in; }
  static constexpr std::size_t flops(shape in) { return in.size(); }
  static constexpr std::size_t useful_flops(shape in) { return flops(in); }

  template <shape In, fusion, class Device>
  static void forward(Device& device, const forward_pass& p) {
    device.add(In, p.batch, p.x, p.residual, p.y);
  }
  template <shape In, fusion, class Device>
  static void backward(Device& device, const backward_pass& p) {
    device.copy(In, p.batch, p.dy, p.dx);
    device.copy(In, p.batch, p.dy, p.d_residual);
  }
};
template <>
inline constexpr layer_kind kind_of<add> = layer_kind::add;

}  // namespace kd::inline KD_ABI::nn
