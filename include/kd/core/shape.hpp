/// Shapes and geometries that are known at compile time; the batch size is not part of them.
#pragma once

#include <cstddef>
#include <string>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"

namespace kd::inline KD_ABI {

/// The shape of one sample: an image [C,H,W], or a row of features [F] (height and width 1).
struct shape {
  std::size_t channels = 0;
  std::size_t height = 1;
  std::size_t width = 1;
  bool row = false;

  constexpr std::size_t pixels() const { return height * width; }
  constexpr std::size_t size() const { return channels * height * width; }
  friend constexpr bool operator==(const shape&, const shape&) = default;
};

constexpr shape image_shape(std::size_t channels, std::size_t height, std::size_t width) {
  return {channels, height, width, false};
}
constexpr shape row_shape(std::size_t features) { return {features, 1, 1, true}; }

/// "[3,32,32]" or "[1024]".
inline std::string text_of(const shape& s) {
  return s.row ? text("[", s.channels, "]") : text("[", s.channels, ",", s.height, ",", s.width, "]");
}

/// Geometry of a 2-d convolution (cross-correlation, as in PyTorch). A linear layer is the one on a 1x1 image.
struct conv2d_geometry {
  std::size_t in_channels, in_height, in_width, out_channels;
  std::size_t kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, padding_h = 0, padding_w = 0;

  constexpr std::size_t out_height() const { return (in_height + 2 * padding_h - kernel_h) / stride_h + 1; }
  constexpr std::size_t out_width() const { return (in_width + 2 * padding_w - kernel_w) / stride_w + 1; }
  constexpr std::size_t weights() const { return out_channels * kernel_h * kernel_w * in_channels; }
  constexpr shape in() const { return image_shape(in_channels, in_height, in_width); }
  constexpr shape out() const { return image_shape(out_channels, out_height(), out_width()); }
  friend constexpr bool operator==(const conv2d_geometry&, const conv2d_geometry&) = default;
};

/// A range of positions [begin, end).
struct range {
  std::size_t begin = 0, end = 0;
  constexpr std::size_t size() const { return end - begin; }
};

/// The taps k of a kernel, of `kernel` taps along one axis, that meet the input (not padding) at output position `out`.
constexpr range live_taps(std::size_t out, std::size_t in_size, std::size_t kernel, std::size_t stride,
                          std::size_t padding) {
  const std::size_t first = out * stride;  // input position of tap k is first + k - padding
  const std::size_t begin = first >= padding ? 0 : padding - first;
  const std::size_t limit = in_size + padding > first ? in_size + padding - first : 0;
  const std::size_t end = limit < kernel ? limit : kernel;
  return begin < end ? range{begin, end} : range{0, 0};
}

/// The taps along one axis that meet the input at some output position; all others only ever multiply padding.
constexpr range ever_live_taps(std::size_t in_size, std::size_t out_size, std::size_t kernel, std::size_t stride,
                               std::size_t padding) {
  range all{kernel, 0};
  for (std::size_t out = 0; out < out_size; ++out) {
    const range here = live_taps(out, in_size, kernel, stride, padding);
    if (here.size() == 0) continue;
    all.begin = here.begin < all.begin ? here.begin : all.begin;
    all.end = here.end > all.end ? here.end : all.end;
  }
  return all.begin < all.end ? all : range{0, 0};
}

/// Geometry of a pooling window; padding counts as minus infinity for the maximum.
struct pool2d_geometry {
  std::size_t channels, in_height, in_width;
  std::size_t kernel = 2, stride = 2, padding = 0;

  constexpr std::size_t out_height() const { return (in_height + 2 * padding - kernel) / stride + 1; }
  constexpr std::size_t out_width() const { return (in_width + 2 * padding - kernel) / stride + 1; }
  constexpr shape in() const { return image_shape(channels, in_height, in_width); }
  constexpr shape out() const { return image_shape(channels, out_height(), out_width()); }
};

}  // namespace kd::inline KD_ABI
