/// A dense host tensor, row-major, of a rank known at compile time: what kd hands out and takes in.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/sizes.hpp"

namespace kd::inline KD_ABI {

/// Owns its elements; tensor<float, 2> logits({50000, 10}) is zero, logits(i, j) is an element, logits.row(i) a span.
template <class T, std::size_t Rank>
class tensor {
 public:
  tensor() = default;
  /// Throws argument_error where the elements would not fit an address.
  explicit tensor(const std::array<std::size_t, Rank>& extents) : extents_(extents) {
    std::size_t size = 1;
    for (const std::size_t extent : extents)
      size = product_of("kd::tensor", {size, extent, sizeof(T)}, "check the extents") / sizeof(T);
    elements_.resize(size);
  }
  tensor(const tensor&) = default;
  tensor& operator=(const tensor&) = default;
  /// The other one is empty then, in extents as in elements.
  tensor(tensor&& other) noexcept
      : extents_(std::exchange(other.extents_, {})), elements_(std::exchange(other.elements_, {})) {}
  tensor& operator=(tensor&& other) noexcept {
    extents_ = std::exchange(other.extents_, {});
    elements_ = std::exchange(other.elements_, {});
    return *this;
  }

  std::size_t extent(std::size_t axis) const { return extents_[axis]; }
  const std::array<std::size_t, Rank>& extents() const { return extents_; }
  std::size_t size() const { return elements_.size(); }
  T* data() { return elements_.data(); }
  const T* data() const { return elements_.data(); }
  std::span<T> elements() { return elements_; }
  std::span<const T> elements() const { return elements_; }

  /// Element at one index per axis; not checked, since loops live on it: the indices must lie inside.
  template <class... Index>
  requires(sizeof...(Index) == Rank) T& operator()(Index... index) { return elements_[position(index...)]; }
  template <class... Index>
  requires(sizeof...(Index) == Rank) const T& operator()(Index... index) const { return elements_[position(index...)]; }

  /// The elements with first index i; throws argument_error outside.
  std::span<const T> row(std::size_t i) const {
    if (i >= extents_[0])
      reject_argument("kd::tensor::row", text("the row must be below ", extents_[0]), i, "check the index");
    return elements().subspan(i * (size() / extents_[0]), size() / extents_[0]);
  }

 private:
  template <class... Index>
  std::size_t position(Index... index) const {
    std::size_t at = 0, axis = 0;
    ((at = at * extents_[axis++] + static_cast<std::size_t>(index)), ...);
    return at;
  }

  std::array<std::size_t, Rank> extents_{};
  std::vector<T> elements_;
};

}  // namespace kd::inline KD_ABI
