/// The matrix product that every convolution and linear layer of the CPU device runs on.
///
///   C[i][v] (+)= sum over segments, sum over k of the segment:  A[i, k] * B[k][v]
///
/// A is read one scalar at a time and broadcast, B and C are vectors of 16 floats (16 samples, or 16 channels), and
/// every operand is reached through strides, so that convolutions run on activations and weights where they lie: a
/// segment is a run of k along which A and B advance by constant strides, such as the taps of one kernel row.
#pragma once

#include <array>
#include <cstddef>

#include "kd/core/abi.hpp"
#include "kd/cpu/simd.hpp"

namespace kd::inline KD_ABI::cpu {

/// Strides of the three operands, in floats: rows are indexed by i, vectors of 16 by v.
struct product_strides {
  std::size_t a_row, a_k, b_k, b_v, c_row, c_v;
};

/// A run of k: A[i, k] is a[i * a_row + k * a_k], B[k][v] is the 16 floats from b + k * b_k + v * b_v.
struct product_segment {
  const float* a;
  const float* b;
  std::size_t count;
};

/// What happens to the sums: C = [C +] sum [+ bias[i]], and then the negative ones become 0 where relu is set.
struct product_update {
  bool accumulate = false;
  const float* bias = nullptr;
  bool relu = false;
};

/// `count` units cut into `parts` runs whose sizes differ by at most one: where run `index` begins.
constexpr std::size_t balanced_begin(std::size_t count, std::size_t parts, std::size_t index) {
  return count * index / parts;
}

namespace detail {

// Accumulators stay in registers: 24 of AVX-512's 32 leave room for the vectors of B and the broadcast, 12 of AVX2's 16
// are 6 rows of two; SSE2 multiplies and adds in two instructions and needs one more register for the product.
template <std::size_t Width>
inline constexpr std::size_t most_vectors = Width == 16 ? 4 : 1;
template <std::size_t Width>
constexpr std::size_t most_rows(std::size_t vectors) {
  if (Width == 16) return vectors == 4 ? 6 : 8;
  return Width == 8 ? 6 : 2;
}

/// One tile of C, Rows x Vectors, over all segments.
///
/// Left out of the checks for undefined behaviour, which take ten times as long to compile when all is unrolled; the
/// address sanitizer still sees every access.
template <std::size_t Width, std::size_t Rows, std::size_t Vectors>
__attribute__((noinline, no_sanitize("undefined"))) void product_tile(const product_strides& s,
                                                                      const product_segment* segment,
                                                                      std::size_t segments, std::size_t row, float* c,
                                                                      const product_update& update) {
  constexpr std::size_t natives = 16 / Width;  // native vectors in 16 floats
  constexpr std::size_t columns = Vectors * natives;
  vector_of<Width> sum[Rows][columns] = {};
  const std::size_t a_row = s.a_row, a_k = s.a_k, b_k = s.b_k, b_v = s.b_v;
  for (const product_segment* end = segment + segments; segment != end; ++segment) {
    const float* a = segment->a + row * a_row;
    const float* b = segment->b;
    for (std::size_t k = segment->count; k != 0; --k) {
      vector_of<Width> b_here[columns];
      KD_UNROLL(16)
      for (std::size_t v = 0; v < columns; ++v) load(b_here[v], b + (v / natives) * b_v + (v % natives) * Width);
      KD_UNROLL(16)
      for (std::size_t i = 0; i < Rows; ++i) {
        const float a_here = a[i * a_row];
        KD_UNROLL(16)
        for (std::size_t v = 0; v < columns; ++v) sum[i][v] += a_here * b_here[v];
      }
      a += a_k;
      b += b_k;
    }
  }
  c += row * s.c_row;
  KD_UNROLL(16)
  for (std::size_t i = 0; i < Rows; ++i) {
    KD_UNROLL(16)
    for (std::size_t v = 0; v < columns; ++v) {
      float* out = c + i * s.c_row + (v / natives) * s.c_v + (v % natives) * Width;
      vector_of<Width> value = sum[i][v];
      if (update.accumulate) {
        vector_of<Width> before;
        load(before, out);
        value += before;
      }
      if (update.bias != nullptr) value += update.bias[row + i];
      const vector_of<Width> zero = {};
      if (update.relu) value = zero > value ? zero : value;  // a NaN stays
      store(out, value);
    }
  }
}

using product_tile_function = void (*)(const product_strides&, const product_segment*, std::size_t, std::size_t, float*,
                                       const product_update&);

template <std::size_t Width, std::size_t Vectors, std::size_t... Index>
constexpr auto product_tiles(std::index_sequence<Index...>) {
  return std::array<product_tile_function, sizeof...(Index)>{&product_tile<Width, Index + 1, Vectors>...};
}

/// C of `rows` x Vectors over all segments, in tiles of balanced height.
template <std::size_t Width, std::size_t Vectors>
void product_sweep(const product_strides& s, std::size_t rows, const product_segment* segment, std::size_t segments,
                   float* c, const product_update& update) {
  constexpr std::size_t most = most_rows<Width>(Vectors);
  static constexpr auto tiles = product_tiles<Width, Vectors>(std::make_index_sequence<most>{});
  const std::size_t parts = (rows + most - 1) / most;
  for (std::size_t p = 0; p < parts; ++p) {
    const std::size_t begin = balanced_begin(rows, parts, p), end = balanced_begin(rows, parts, p + 1);
    tiles[end - begin - 1](s, segment, segments, begin, c, update);
  }
}

template <std::size_t Width>
void product_sweep(const product_strides& s, std::size_t rows, std::size_t vectors, const product_segment* segment,
                   std::size_t segments, float* c, const product_update& update) {
  if constexpr (most_vectors<Width> == 4) {
    switch (vectors) {
      case 4:
        return product_sweep<Width, 4>(s, rows, segment, segments, c, update);
      case 3:
        return product_sweep<Width, 3>(s, rows, segment, segments, c, update);
      case 2:
        return product_sweep<Width, 2>(s, rows, segment, segments, c, update);
      default:
        return product_sweep<Width, 1>(s, rows, segment, segments, c, update);
    }
  } else {
    product_sweep<Width, 1>(s, rows, segment, segments, c, update);
  }
}

}  // namespace detail

/// Computes one C of `rows` x `vectors` from segments that are added one by one.
///
/// k is worked off in chunks, each swept by all rows while its part of B stays in the L1 or L2 cache; between chunks
/// the sums wait in C. Every sum of a chunk begins at zero, which also keeps the rounding error of long sums small.
template <std::size_t Width>
class product {
 public:
  /// k_total is the sum of the counts to come (it only balances the chunks); at most vectors_at_once<Width> vectors.
  product(const product_strides& strides, std::size_t rows, std::size_t vectors, std::size_t k_total, float* c,
          const product_update& update)
      : strides_(strides), rows_(rows), vectors_(vectors), c_(c), update_(update) {
    const std::size_t chunks = (k_total + chunk - 1) / chunk;
    limit_ = chunks == 0 ? chunk : (k_total + chunks - 1) / chunks;
  }

  void add(const float* a, const float* b, std::size_t count) {
    while (count > 0) {
      if (segments_ == segment_.size() || pending_ >= limit_) flush(false);
      std::size_t here = count;
      // A segment is cut only where it alone exceeds the chunk; short ones stay whole and may overfill it a little.
      if (count > limit_) here = limit_ - (pending_ < limit_ ? pending_ : 0);
      segment_[segments_++] = {a, b, here};
      pending_ += here;
      count -= here;
      a += here * strides_.a_k;
      b += here * strides_.b_k;
    }
  }

  /// Finishes the sums and applies the update; without any segment C becomes what the update makes of 0.
  void finish() { flush(true); }

 private:
  // With 4 vectors of B 48 KiB. On a Zen 4 of 115 GFLOP/s per core the forward pass of ResNet18's 3x3 layers, batch
  // 128, one thread, ran at 102 GFLOP/s with 64, 107 with 128, 109 with 192 and 110 with 256.
  static constexpr std::size_t chunk = 192;

  void flush(bool last) {
    const product_update now{update_.accumulate || begun_, last ? update_.bias : nullptr, last && update_.relu};
    detail::product_sweep<Width>(strides_, rows_, vectors_, segment_.data(), segments_, c_, now);
    begun_ = true;
    segments_ = 0;
    pending_ = 0;
  }

  product_strides strides_;
  std::size_t rows_, vectors_, limit_;
  float* c_;
  product_update update_;
  bool begun_ = false;
  std::size_t segments_ = 0, pending_ = 0;
  std::array<product_segment, 32> segment_;
};

/// The most vectors of B and C that one product<Width> takes.
template <std::size_t Width>
inline constexpr std::size_t vectors_at_once = detail::most_vectors<Width>;

}  // namespace kd::inline KD_ABI::cpu
