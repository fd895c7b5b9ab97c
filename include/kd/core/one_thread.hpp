/// For objects that cannot serve two threads at once: the second thread gets an error instead of a wrong result.
#pragma once

#include <atomic>
#include <string_view>
#include <thread>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"

namespace kd::inline KD_ABI {

/// Knows which thread uses an object now. It makes nobody wait; taking and giving back are one atomic operation each.
class one_thread {
 public:
  /// The time that a thread uses the object. Within it the same thread may take further ones.
  class [[nodiscard]] use {
   public:
    use(const use&) = delete;
    use& operator=(const use&) = delete;
    ~use() {
      if (taken_ != nullptr) taken_->store({}, std::memory_order_release);
    }

   private:
    friend class one_thread;
    explicit use(std::atomic<std::thread::id>* taken) : taken_(taken) {}
    std::atomic<std::thread::id>* taken_;  // null within another use of the same thread
  };

  one_thread() = default;
  /// Nobody uses an object that has just come from another.
  one_thread(one_thread&&) noexcept {}
  one_thread& operator=(one_thread&&) noexcept { return *this; }

  /// Throws argument_error, in the name of `object`, while another thread uses it.
  use take(std::string_view object) {
    const std::thread::id me = std::this_thread::get_id();
    std::thread::id user;
    if (user_.compare_exchange_strong(user, me, std::memory_order_acquire, std::memory_order_relaxed))
      return use(&user_);
    if (user == me) return use(nullptr);
    reject_argument(object, "one thread may use it at a time", "a call while another thread uses it",
                    "give each thread an object of its own");
  }

 private:
  std::atomic<std::thread::id> user_{};
};

}  // namespace kd::inline KD_ABI
