/// The order in which samples are visited: a pure function of (samples, seed, epoch), cut into batches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/random.hpp"

namespace kd::inline KD_ABI::data {

/// Fills `order` with 0, 1, ..., size - 1: file order, for evaluation. At most 2^32 - 1 samples.
inline void sequential_order(std::span<std::uint32_t> order) {
  if (order.size() > std::numeric_limits<std::uint32_t>::max()) {
    reject_argument("kd::data::sequential_order", "at most 4294967295 samples", order.size(), "split the set");
  }
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::uint32_t>(i);
}

/// Fills `order` with a permutation of 0 ... size - 1: Fisher and Yates's shuffle (Knuth, TAOCP 2, algorithm 3.4.2P) on
/// Philox words, so that any epoch can be had without the ones before it. Allocates nothing.
inline void epoch_order(std::span<std::uint32_t> order, std::uint64_t seed, std::uint32_t epoch) {
  sequential_order(order);
  random_words words{};
  for (std::size_t i = order.size(); i-- > 1;) {
    const auto position = static_cast<std::uint32_t>(i);
    if (position % 4 == 3 || i + 1 == order.size()) {
      words = random_at(seed, random_stream::shuffle, position / 4, epoch);
    }
    std::swap(order[i], order[uniform_below(words[position % 4], position + 1)]);
  }
}

/// The same as a new vector.
inline std::vector<std::uint32_t> epoch_order(std::size_t samples, std::uint64_t seed, std::uint32_t epoch) {
  std::vector<std::uint32_t> order(samples);
  epoch_order(order, seed, epoch);
  return order;
}

/// An order cut into batches; the last one may be shorter. A view: the order must outlive it.
class batches {
 public:
  /// batch_size > 0, otherwise argument_error.
  batches(std::span<const std::uint32_t> order, std::size_t batch_size) : order_(order), batch_size_(batch_size) {
    if (batch_size == 0) reject_argument("kd::data::batches", "batch_size must be at least 1", batch_size, "pass 128");
  }

  /// How many batches, the partial last one included.
  std::size_t size() const { return order_.size() / batch_size_ + (order_.size() % batch_size_ != 0); }
  /// How many samples in all.
  std::size_t samples() const { return order_.size(); }

  /// The sample indices of all batches, one after another.
  std::span<const std::uint32_t> order() const { return order_; }

  /// The sample indices of batch b < size(); otherwise argument_error.
  std::span<const std::uint32_t> operator[](std::size_t b) const {
    if (b >= size()) {
      reject_argument("kd::data::batches[]", text("the batch index must be below ", size()), b, "loop to size()");
    }
    const std::size_t begin = b * batch_size_, left = order_.size() - begin;
    return order_.subspan(begin, left < batch_size_ ? left : batch_size_);
  }

  class iterator {
   public:
    iterator(const batches& of, std::size_t at) : of_(&of), at_(at) {}
    std::span<const std::uint32_t> operator*() const { return (*of_)[at_]; }
    iterator& operator++() {
      ++at_;
      return *this;
    }
    friend bool operator==(const iterator&, const iterator&) = default;

   private:
    const batches* of_;
    std::size_t at_;
  };
  iterator begin() const { return {*this, 0}; }
  iterator end() const { return {*this, size()}; }

 private:
  std::span<const std::uint32_t> order_;
  std::size_t batch_size_;
};

/// Owns one order buffer and hands out the batches of any epoch; allocates in the constructor alone.
class loader {
 public:
  /// batch_size > 0 and samples > 0, otherwise argument_error.
  loader(std::size_t samples, std::size_t batch_size, std::uint64_t seed)
      : order_(samples), batch_size_(batch_size), seed_(seed) {
    if (samples == 0)
      reject_argument("kd::data::loader", "samples must be at least 1", samples, "load a data set first");
    (void)batches(order_, batch_size);
  }

  /// The shuffled batches of an epoch; valid until the next call of epoch() or in_file_order().
  batches epoch(std::uint32_t number) {
    epoch_order(order_, seed_, number);
    return {order_, batch_size_};
  }
  /// The batches of the order that was made last.
  batches current() const { return {order_, batch_size_}; }
  /// The batches in file order, for evaluation; valid until the next call of epoch() or in_file_order().
  batches in_file_order() {
    sequential_order(order_);
    return {order_, batch_size_};
  }
  /// Batches per epoch.
  std::size_t steps() const { return batches(order_, batch_size_).size(); }

 private:
  std::vector<std::uint32_t> order_;
  std::size_t batch_size_;
  std::uint64_t seed_;
};

}  // namespace kd::inline KD_ABI::data
