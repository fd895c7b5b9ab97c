/// Products of matrices that lie row by row, in any format of logits, on the micro-kernel of cpu/matrix.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "kd/core/abi.hpp"
#include "kd/cpu/detail/logit_formats.hpp"
#include "kd/cpu/matrix.hpp"
#include "kd/cpu/simd.hpp"

namespace kd::inline KD_ABI::cpu::detail {

/// Columns of the right operand that are worked off at once, and its rows that are packed at once. A panel of floats
/// lies [rows][panel_columns] and stays in the caches while all rows of the left operand pass by.
template <std::size_t Width>
inline constexpr std::size_t panel_columns = vectors_at_once<Width> * 16;
inline constexpr std::size_t panel_rows = 192;
template <std::size_t Width>
inline constexpr std::size_t panel_floats = panel_columns<Width>* panel_rows;

/// panel[k][j] = matrix[k][j] of `rows` x `columns` elements whose rows lie `stride` apart; 0 in the further columns.
template <std::size_t Width, class T>
void pack_panel(const T* matrix, std::size_t stride, std::size_t rows, std::size_t columns, float* panel) {
  constexpr std::size_t all = panel_columns<Width>;
  for (std::size_t k = 0; k < rows; ++k) {
    for (std::size_t j = 0; j < columns; ++j) panel[k * all + j] = to_float(matrix[k * stride + j]);
    std::fill(panel + k * all + columns, panel + (k + 1) * all, 0.0f);
  }
}

/// panel[k][j] = matrix[j][k]: `columns` rows of the matrix become the panel's columns.
template <std::size_t Width, class T>
void pack_panel_transposed(const T* matrix, std::size_t stride, std::size_t rows, std::size_t columns, float* panel) {
  constexpr std::size_t all = panel_columns<Width>;
  for (std::size_t k = 0; k < rows; k += 16)
    for (std::size_t j = 0; j < all; j += 16) {
      const T* const from = matrix + j * stride + k;
      float* const to = panel + k * all + j;
      const std::size_t filled = j < columns ? std::min<std::size_t>(16, columns - j) : 0;
      if (rows - k < 16) {
        for (std::size_t i = 0; i < rows - k; ++i)
          for (std::size_t r = 0; r < 16; ++r) to[i * all + r] = r < filled ? to_float(from[r * stride + i]) : 0.0f;
      } else if constexpr (std::is_same_v<T, float>) {
        transpose_16x16<Width>(from, stride, filled, to, all);
      } else {
        float square[16 * 16];
        for (std::size_t r = 0; r < 16; ++r)
          for (std::size_t i = 0; i < 16; i += Width)
            store(square + r * 16 + i, r < filled ? load<Width>(from + r * stride + i) : splat<Width>(0));
        transpose_16x16<Width>(square, 16, 16, to, all);
      }
    }
}

/// Distance of the rows of a matrix of one's own, in floats: whole vectors of 16, and one more, so that the rows of a
/// panel of it do not all fall into the same lines of a cache where the width is a power of 2.
constexpr std::size_t padded_stride(std::size_t width) { return (width + 15) / 16 * 16 + 16; }

/// A left operand: A[i, k] is data[i * row + k * column].
struct left_operand {
  const float* data;
  std::size_t row, column;
};

/// C (+)= A B for `depth` rows of B that lie b_row apart, with whole vectors of 16 for all of its `columns`, at most
/// panel_columns; C has `rows` rows that lie c_row apart, and no more than these columns.
template <std::size_t Width>
void multiply_panel(const left_operand& a, std::size_t rows, const float* b, std::size_t b_row, std::size_t depth,
                    float* c, std::size_t c_row, std::size_t columns, bool accumulate) {
  const std::size_t whole = columns / 16;
  if (whole > 0) {
    product<Width> sums({a.row, a.column, b_row, 16, c_row, 16}, rows, whole, depth, c, {.accumulate = accumulate});
    sums.add(a.data, b, depth);
    sums.finish();
  }
  if (columns % 16 == 0) return;
  // The last columns by way of 16 that are there.
  constexpr std::size_t at_once = 24;
  float last[at_once * 16];
  for (std::size_t i = 0; i < rows; i += at_once) {
    const std::size_t here = std::min(at_once, rows - i);
    product<Width> sums({a.row, a.column, b_row, 16, 16, 16}, here, 1, depth, last, {});
    sums.add(a.data + i * a.row, b + whole * 16, depth);
    sums.finish();
    for (std::size_t r = 0; r < here; ++r)
      for (std::size_t j = whole * 16; j < columns; ++j) {
        float& to = c[(i + r) * c_row + j];
        to = last[r * 16 + j - whole * 16] + (accumulate ? to : 0.0f);
      }
  }
}

}  // namespace kd::inline KD_ABI::cpu::detail
