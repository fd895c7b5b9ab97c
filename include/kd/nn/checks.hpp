/// What a network must be, checked at compile time: each mistake is one error, and the layer's name stands among the
/// template arguments that the compiler prints: check_layer<printed_name<14>{"layer2.0.conv1"}, ...>.
#pragma once

#include <type_traits>

#include "kd/core/shape.hpp"
#include "kd/core/static_text.hpp"
#include "kd/nn/layer.hpp"
#include "kd/nn/sequential.hpp"

namespace kd::inline KD_ABI::nn::detail {

/// Stands for what a network holds and is no layer, so that this is the one error.
template <class Item>
struct not_a_layer : layer_base {
  static constexpr shape output(shape) { return {}; }
};
template <class Item>
using leaf = std::conditional_t<layer_type<Item>, Item, not_a_layer<Item>>;

template <class Item>
inline constexpr bool is_a_layer = true;
template <class Item>
inline constexpr bool is_a_layer<not_a_layer<Item>> = false;

/// The first difference between the shapes that a residual block adds.
template <shape Main, shape Shortcut>
constexpr void check_sum() {
  static_assert(Main.row == Shortcut.row,
                "kd::nn::residual: the main path and the shortcut must both give an image, or both a row of features");
  if constexpr (Main.row == Shortcut.row)
    static_assert(Main.channels == Shortcut.channels,
                  "kd::nn::residual: the channels of the main path must equal those of the shortcut");
  if constexpr (Main.row == Shortcut.row && Main.channels == Shortcut.channels)
    static_assert(Main.height == Shortcut.height,
                  "kd::nn::residual: the height of the main path must equal that of the shortcut");
  if constexpr (Main.row == Shortcut.row && Main.channels == Shortcut.channels && Main.height == Shortcut.height)
    static_assert(Main.width == Shortcut.width,
                  "kd::nn::residual: the width of the main path must equal that of the shortcut");
}

template <printed_name Name, class Layer, shape In, shape Out>
constexpr void check_layer() {
  static_assert(is_a_layer<Layer>,
                "kd::nn: a network holds what is not a layer: layers derive from kd::nn::layer_base and have "
                "output(shape); a residual holds main_path<...> and shortcut<...>");
  if constexpr (is_a_layer<Layer>) {
    Layer::template check<In>();
    if constexpr (kind_of<Layer> == layer_kind::add) {
      if constexpr (Out.size() > 0) check_sum<In, Out>();  // else the shortcut had an error
    } else if constexpr (kind_of<Layer> == layer_kind::other) {
      // kd's own layers have a message in check() for every shape of which output() is empty.
      static_assert(Out.size() > 0,
                    "kd::nn: the layer's output() is empty for the shape that comes in: it does not accept this shape, "
                    "or output() is wrong");
    }
  }
}

template <class Model>
inline constexpr bool is_network = false;
template <class Input, class... Items>
inline constexpr bool is_network<sequential<Input, Items...>> = true;

template <class Model>
constexpr shape input_of() {
  if constexpr (is_network<Model>)
    return Model::input;
  else
    return {};
}
template <class Model>
constexpr void check_network() {
  static_assert(is_network<Model>, "kd::nn: a network is a kd::nn::sequential<input, layers...>");
  if constexpr (is_network<Model>)
    static_assert(Model::input.size() > 0,
                  "kd::nn::sequential: the input is missing or empty: put kd::image<channels, height, width> or "
                  "kd::row<features> before the layers");
}
template <printed_name Name, shape Declared, shape Incoming>
constexpr void check_nested_input() {
  static_assert(Declared == Incoming,
                "kd::nn::sequential: the input that a nested network declares must be what comes in there; a block<> "
                "declares none");
}

}  // namespace kd::inline KD_ABI::nn::detail
