/// Networks as types: containers of layers, and the names of their children.
///
/// A container only lists types side by side; nothing nests by depth. Children are named as in PyTorch: by position in
/// a sequential, or by the name that as<> or named<> gives, so that "features.0.weight" means the same here and there.
#pragma once

#include <concepts>

#include "kd/core/shape.hpp"
#include "kd/core/static_text.hpp"

namespace kd::inline KD_ABI {

/// The input of a network: images [Channels,Height,Width].
template <std::size_t Channels, std::size_t Height, std::size_t Width>
struct image {
  static constexpr shape value = image_shape(Channels, Height, Width);
};

/// The input of a network: rows of features [Features].
template <std::size_t Features>
struct row {
  static constexpr shape value = row_shape(Features);
};

}  // namespace kd::inline KD_ABI

namespace kd::inline KD_ABI::nn {

/// What a network begins with: kd::image or kd::row, or a type of your own with the shape of one sample.
template <class T>
concept network_input = requires {
  { T::value } -> std::convertible_to<shape>;
};

/// A network: an input and the layers that it goes through. Inside another network it is a block, whose input must be
/// what comes in there.
template <class Input, class... Layers>
struct sequential {
  /// Empty where Input is no input, which the plan reports.
  static constexpr shape input = [] {
    if constexpr (network_input<Input>)
      return Input::value;
    else
      return shape{};
  }();
};

/// Layers one after another inside a network; children are named by position: "0", "1", ...
template <class... Layers>
struct block {};

/// A block under a name: named<"features", conv2d<16, 3>, relu> has the weight "features.0.weight".
template <fixed_string Name, class... Layers>
struct named {};

/// A single layer or block under a name; the empty name leaves its children directly under the parent's.
template <fixed_string Name, class Layer>
struct as {};

/// The main path of a residual block; its children are named directly under the block.
template <class... Layers>
struct main_path {};

/// The shortcut of a residual block; none: the identity. Children are "downsample.0", ... as in torchvision.
template <class... Layers>
struct shortcut {};

/// main(x) + shortcut(x), without an activation behind it. He et al. 2015, arXiv:1512.03385, eq. 1 and 2.
template <class Main, class Shortcut = shortcut<>>
struct residual {};

}  // namespace kd::inline KD_ABI::nn
