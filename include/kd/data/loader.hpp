/// The order in which samples are visited: a pure function of (samples, seed, epoch), cut into batches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/random.hpp"

namespace kd::inline KD_ABI::data {

namespace detail {

/// Throws argument_error unless an index of 32 bits reaches every sample.
inline void require_countable(std::string_view function, std::size_t samples) {
  if (samples > std::numeric_limits<std::uint32_t>::max())
    reject_argument(function, "at most 4294967295 samples", samples, "split the set");
}

}  // namespace detail

/// Fills `order` with 0, 1, ..., size - 1: file order, for evaluation. At most 2^32 - 1 samples.
inline void sequential_order(std::span<std::uint32_t> order) {
  detail::require_countable("kd::data::sequential_order", order.size());
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
  detail::require_countable("kd::data::epoch_order", samples);
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
  /// `drop_last` leaves out the batch at the end of an epoch that is not full: other samples each time. Throws
  /// argument_error unless batch_size and samples are at least 1, and leave a batch.
  loader(std::size_t samples, std::size_t batch_size, std::uint64_t seed, bool drop_last = false)
      : order_(checked(samples, batch_size, drop_last)),
        used_(drop_last ? samples / batch_size * batch_size : samples),
        batch_size_(batch_size),
        seed_(seed) {}

  /// The shuffled batches of an epoch; valid until the next call of epoch() or in_file_order().
  batches epoch(std::uint32_t number) {
    epoch_order(order_, seed_, number);
    return current();
  }
  /// The batches of the epoch that was made last.
  batches current() const { return {std::span(order_).first(used_), batch_size_}; }
  /// All samples in file order, for evaluation; valid until the next call of epoch() or in_file_order().
  batches in_file_order() {
    sequential_order(order_);
    return {order_, batch_size_};
  }
  /// Batches per epoch.
  std::size_t steps() const { return current().size(); }

 private:
  /// How long the order is: the samples, once they are known to be right.
  static std::size_t checked(std::size_t samples, std::size_t batch_size, bool drop_last) {
    constexpr std::string_view me = "kd::data::loader";
    if (samples == 0) reject_argument(me, "samples must be at least 1", samples, "load a data set first");
    detail::require_countable(me, samples);
    (void)batches({}, batch_size);
    if (drop_last && batch_size > samples)
      reject_argument(me, text("with drop_last, batch_size must be at most the ", samples, " samples"), batch_size,
                      "use a smaller batch_size");
    return samples;
  }

  std::vector<std::uint32_t> order_;
  std::size_t used_;  // so many samples of the order are in batches
  std::size_t batch_size_;
  std::uint64_t seed_;
};

}  // namespace kd::inline KD_ABI::data
