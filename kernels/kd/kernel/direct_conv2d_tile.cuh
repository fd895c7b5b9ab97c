/// What the direct 3x3 convolutions share: four channels at a time, and tiles of images in shared memory.
///
/// A convolution here has a 3x3 kernel, stride 1 and padding 1, so that input and output have the same height and
/// width. A block stages the part of one sample's image that its tile of outputs reads, with a border of one pixel;
/// what lies outside the image is zero, and so no sum ever asks where it is. Non-finite weights therefore reach the
/// image's border too (0 * inf is NaN). Images are NHWC, weights [out][3][3][in].
#pragma once

#include "kd/kernel/number.cuh"

#pragma GCC visibility push(hidden)
namespace kd::kernel::inline KD_KERNEL_ABI {
namespace direct_conv {

inline constexpr unsigned taps = 9;
/// The mark of a pooled value that relu made 0: none of its window's four positions receives the gradient.
inline constexpr unsigned no_winner = 4;

/// An image of one sample; channels lie in groups of four in shared memory, the last group filled up with zeros.
struct image_size {
  unsigned height, width, channels;
  __host__ __device__ constexpr unsigned groups() const { return (channels + 3) / 4; }
};

/// n / divisor by one multiplication, exact where n * divisor < 65,536.
struct short_division {
  unsigned divisor, factor;
  __device__ explicit short_division(unsigned by) : divisor(by), factor(65536u / by + 1) {}
  __device__ unsigned quotient(unsigned n) const { return n * factor >> 16; }
};

// ---- four channels

__device__ inline float4 load_four(const float* from) { return *reinterpret_cast<const float4*>(from); }
__device__ inline float4 load_four(const bfloat16* from) {
  const uint2 pairs = *reinterpret_cast<const uint2*>(from);
  return {bits_to_float(pairs.x << 16), bits_to_float(pairs.x & 0xffff0000u), bits_to_float(pairs.y << 16),
          bits_to_float(pairs.y & 0xffff0000u)};
}
__device__ inline void store_four(float* to, const float4& v) { *reinterpret_cast<float4*>(to) = v; }
__device__ inline void store_four(bfloat16* to, const float4& v) {
  const auto pair = [](float low, float high) {
    return std::uint32_t{from_float<bfloat16>(low).bits} | std::uint32_t{from_float<bfloat16>(high).bits} << 16;
  };
  uint2 pairs;
  pairs.x = pair(v.x, v.y);
  pairs.y = pair(v.z, v.w);
  *reinterpret_cast<uint2*>(to) = pairs;
}

/// Whether groups of four values may be moved at once: every pixel begins at a multiple of their size.
template <class T>
__device__ bool in_fours(const T* image, unsigned channels) {
  return channels % 4 == 0 && reinterpret_cast<std::uintptr_t>(image) % (4 * sizeof(T)) == 0;
}

/// Channels [first, first + 4) of a pixel; 0 from `channels` on.
template <bool Fours, class T>
__device__ float4 load_channels(const T* pixel, unsigned first, unsigned channels) {
  if constexpr (Fours) return load_four(pixel + first);
  const auto at = [&](unsigned c) { return c < channels ? to_float(pixel[c]) : 0.0f; };
  return {at(first), at(first + 1), at(first + 2), at(first + 3)};
}
template <class T>
__device__ void store_channels(T* pixel, unsigned first, unsigned channels, bool fours, const float4& v) {
  if (fours) return store_four(pixel + first, v);
  pixel[first] = from_float<T>(v.x);
  if (first + 1 < channels) pixel[first + 1] = from_float<T>(v.y);
  if (first + 2 < channels) pixel[first + 2] = from_float<T>(v.z);
  if (first + 3 < channels) pixel[first + 3] = from_float<T>(v.w);
}

/// Winners of channels [first, first + 4), one per byte, the first in the lowest; no_winner from `channels` on.
template <bool Fours>
__device__ std::uint32_t load_winners(const std::uint8_t* pixel, unsigned first, unsigned channels) {
  if constexpr (Fours) return *reinterpret_cast<const std::uint32_t*>(pixel + first);
  const auto at = [&](unsigned c) { return std::uint32_t{c < channels ? pixel[c] : std::uint8_t{no_winner}}; };
  return at(first) | at(first + 1) << 8 | at(first + 2) << 16 | at(first + 3) << 24;
}
__device__ inline void store_winners(std::uint8_t* pixel, unsigned first, unsigned channels, bool fours,
                                     std::uint32_t v) {
  if (fours) {
    *reinterpret_cast<std::uint32_t*>(pixel + first) = v;
    return;
  }
#pragma unroll
  for (unsigned k = 0; k < 4; ++k)
    if (first + k < channels) pixel[first + k] = static_cast<std::uint8_t>(v >> 8 * k);
}

__device__ inline float component(const float4& v, unsigned k) {
  return k == 0 ? v.x : k == 1 ? v.y : k == 2 ? v.z : v.w;
}

// ---- tiles

/// A tile with its border, group after group; within a row the even columns come first, then the odd ones.
///
/// Positions are in float4. Eight threads that read the same column of eight neighbouring 2-pixel windows read eight
/// neighbouring float4, all banks once; the odd pitch keeps that so where a warp takes several rows of windows, and the
/// distance of groups where a warp writes several groups.
struct bordered_layout {
  static constexpr unsigned border = 1;
  unsigned rows, columns, half, pitch, plane;

  __host__ __device__ constexpr bordered_layout(unsigned tile_rows, unsigned tile_columns)
      : rows(tile_rows + 2), columns(tile_columns + 2), half(columns / 2), pitch(columns + 1), plane(rows * pitch) {
    plane += (10 - plane % 8) % 8;
  }
  __host__ __device__ constexpr unsigned size(unsigned groups) const { return groups * plane; }
  __device__ unsigned place(unsigned group, unsigned row, unsigned column) const {
    return group * plane + row * pitch + column % 2 * half + column / 2;
  }
};

/// A tile without border, pixel after pixel, the groups of a pixel side by side; positions are in float4.
struct pixel_layout {
  static constexpr unsigned border = 0;
  unsigned rows, columns, groups, pitch;

  __host__ __device__ constexpr pixel_layout(unsigned tile_rows, unsigned tile_columns, unsigned pixel_groups)
      : rows(tile_rows), columns(tile_columns), groups(pixel_groups), pitch(columns * groups + 2) {}
  __host__ __device__ constexpr unsigned size() const { return rows * pitch; }
  __device__ unsigned place(unsigned group, unsigned row, unsigned column) const {
    return row * pitch + column * groups + group;
  }
};

/// Loads in flight per thread while tiles and weights are staged: as many as LightNN's layers need, so that each is
/// staged after one latency. Loads come first, then stores, because the compiler does not move them past each other's
/// conditions.
inline constexpr unsigned image_loads_at_once = 6, pooled_loads_at_once = 4, weight_loads_at_once = 9;

template <bool Fours, class T, class Layout>
__device__ void stage_image_by(float4* tile, const Layout& layout, const T* __restrict__ image, const image_size& size,
                               unsigned first_row, unsigned first_column) {
  const short_division groups(size.groups()), columns(layout.columns);
  const unsigned all = layout.rows * layout.columns * groups.divisor;
  for (unsigned base = threadIdx.x; base < all; base += image_loads_at_once * blockDim.x) {
    float4 value[image_loads_at_once];
    unsigned place[image_loads_at_once];
#pragma unroll
    for (unsigned u = 0; u < image_loads_at_once; ++u) {
      const unsigned e = base + u * blockDim.x, pixel = groups.quotient(e), group = e - pixel * groups.divisor;
      const unsigned row = columns.quotient(pixel), column = pixel - row * columns.divisor;
      const unsigned h = first_row + row - Layout::border, w = first_column + column - Layout::border;
      place[u] = layout.place(group, row, column);
      value[u] = {0, 0, 0, 0};
      if (e < all && h < size.height && w < size.width)  // above and left of the image, unsigned numbers are large
        value[u] =
            load_channels<Fours>(image + std::size_t{h * size.width + w} * size.channels, group * 4, size.channels);
    }
#pragma unroll
    for (unsigned u = 0; u < image_loads_at_once; ++u)
      if (base + u * blockDim.x < all) tile[place[u]] = value[u];
  }
}

/// tile = the image from (first_row, first_column) - border on, by all threads of the block; no barrier.
template <class T, class Layout>
__device__ void stage_image(float4* tile, const Layout& layout, const T* __restrict__ image, const image_size& size,
                            unsigned first_row, unsigned first_column) {
  if (in_fours(image, size.channels))
    stage_image_by<true>(tile, layout, image, size, first_row, first_column);
  else
    stage_image_by<false>(tile, layout, image, size, first_row, first_column);
}

/// Writes the four pixels of a window that lie in the tile; windows are counted from the one that meets the border.
template <class Layout>
__device__ void spread_window(float4* tile, const Layout& layout, unsigned group, unsigned down, unsigned right,
                              const float4& value, std::uint32_t winner) {
#pragma unroll
  for (unsigned q = 0; q < 4; ++q) {
    const unsigned row = 2 * down + q / 2 - Layout::border, column = 2 * right + q % 2 - Layout::border;
    const auto where_won = [&](float v, unsigned shift) { return (winner >> shift & 0xffu) == q ? v : 0.0f; };
    if (row < layout.rows && column < layout.columns)
      tile[layout.place(group, row, column)] = {where_won(value.x, 0), where_won(value.y, 8), where_won(value.z, 16),
                                                where_won(value.w, 24)};
  }
}

template <bool Fours, class T, class Layout>
__device__ void stage_pooled_gradient_by(float4* tile, const Layout& layout, const T* __restrict__ d_pooled,
                                         const std::uint8_t* __restrict__ winners, const image_size& size,
                                         unsigned first_row, unsigned first_column) {
  const unsigned windows_down = layout.rows / 2 + Layout::border, height = size.height / 2, width = size.width / 2;
  const short_division groups(size.groups()), across(layout.columns / 2 + Layout::border);
  const unsigned all = windows_down * across.divisor * groups.divisor;
  for (unsigned base = threadIdx.x; base < all; base += pooled_loads_at_once * blockDim.x) {
    float4 value[pooled_loads_at_once];
    std::uint32_t winner[pooled_loads_at_once];
#pragma unroll
    for (unsigned u = 0; u < pooled_loads_at_once; ++u) {
      const unsigned e = base + u * blockDim.x, window = groups.quotient(e), group = e - window * groups.divisor;
      const unsigned down = across.quotient(window), right = window - down * across.divisor;
      const unsigned h = first_row / 2 + down - Layout::border, w = first_column / 2 + right - Layout::border;
      value[u] = {0, 0, 0, 0};
      winner[u] = no_winner * 0x01010101u;
      if (e < all && h < height && w < width) {
        const std::size_t pixel = std::size_t{h * width + w} * size.channels;
        value[u] = load_channels<Fours>(d_pooled + pixel, group * 4, size.channels);
        winner[u] = load_winners<Fours>(winners + pixel, group * 4, size.channels);
      }
    }
#pragma unroll
    for (unsigned u = 0; u < pooled_loads_at_once; ++u) {
      const unsigned e = base + u * blockDim.x, window = groups.quotient(e), group = e - window * groups.divisor;
      const unsigned down = across.quotient(window), right = window - down * across.divisor;
      if (e < all) spread_window(tile, layout, group, down, right, value[u], winner[u]);
    }
  }
}

/// As stage_image, of the gradient before the 2x2 pool: each pooled value at its winner's place, 0 at the other three.
/// `size` is that of the image before the pool; first_row, first_column and the tile's extents are even.
template <class T, class Layout>
__device__ void stage_pooled_gradient(float4* tile, const Layout& layout, const T* __restrict__ d_pooled,
                                      const std::uint8_t* __restrict__ winners, const image_size& size,
                                      unsigned first_row, unsigned first_column) {
  if (in_fours(d_pooled, size.channels) && in_fours(winners, size.channels))
    stage_pooled_gradient_by<true>(tile, layout, d_pooled, winners, size, first_row, first_column);
  else
    stage_pooled_gradient_by<false>(tile, layout, d_pooled, winners, size, first_row, first_column);
}

}  // namespace direct_conv
}  // namespace kd::kernel::inline KD_KERNEL_ABI
#pragma GCC visibility pop
