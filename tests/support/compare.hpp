/// Comparisons of numbers that a NaN cannot pass. They print the worst element and need no Catch, so that benchmarks
/// and probes compare with them too.
///
///     CHECK(near(got, want, {.of_largest = 1e-6}));                          // two arrays, or two numbers
///
///     comparison gradient("gradient");                                       // element by element
///     for (...) gradient.add(got[i], want[i], tolerance_of(i));
///     CHECK(gradient);
///
/// prints, where it fails: gradient[17]: got nan, want 0.25 (error nan, tolerance 1e-06); 3 of 640 wrong
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <ostream>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>

namespace kd_test {

/// The error that a number may have: the sum of the parts. All 0: equal numbers.
struct allowed_error {
  double absolute = 0;
  double relative = 0;        // of the |want| of the same element
  double of_largest = 0;      // of the largest finite |want| of the array
  double scale_at_least = 0;  // what `relative` and `of_largest` are taken of is never smaller than this
};

/// Any number of comparisons, true where all are right. Comparing nothing is wrong, as is another number of elements.
class [[nodiscard]] comparison {
 public:
  /// @param what the name of the array in the message
  explicit comparison(std::string what = {}) : what_(std::move(what)) {}

  /// The next element: right where |got - want| <= tolerance, or where both are the same infinity. A NaN is never
  /// right, in whichever of the three it is; nor is an infinite tolerance.
  void add(double got, double want, double tolerance) { add(got, want, tolerance, count_); }
  /// The same for the element of that index.
  void add(double got, double want, double tolerance, std::size_t index) {
    constexpr double largest = std::numeric_limits<double>::max();
    const double error = got == want ? 0 : std::abs(got - want);
    const bool right = error <= tolerance && tolerance <= largest;
    // Errors that are no number are worse than any that is one, and the first of them stays.
    double badness = std::numeric_limits<double>::infinity();
    if (error <= largest && tolerance >= 0 && tolerance <= largest)
      badness = error == 0 ? 0 : tolerance == 0 ? largest : std::min(error / tolerance, largest);
    if (count_ == 0 || badness > worst_.badness) worst_ = {got, want, error, tolerance, badness, index};
    count_ += 1;
    wrong_ += !right;
  }
  /// Another number of elements than `want` is wrong.
  void add_size(std::size_t got, std::size_t want) {
    if (got != want && sizes_.empty())
      sizes_ = "got " + std::to_string(got) + " elements, want " + std::to_string(want);
  }
  /// All elements of two arrays. Elements of another number are not compared: that alone is wrong.
  template <class Got, class Want>
  void add_all(const Got& got, const Want& want, const allowed_error& allowed) {
    add_size(std::size(got), std::size(want));
    if (std::size(got) != std::size(want)) return;
    double largest = 0;
    for (const auto& w : want)
      if (std::isfinite(static_cast<double>(w))) largest = std::max(largest, std::abs(static_cast<double>(w)));
    for (std::size_t i = 0; i < std::size(got); ++i)
      add(static_cast<double>(got[i]), static_cast<double>(want[i]),
          tolerance_of(static_cast<double>(want[i]), largest, allowed));
  }

  /// The same, where comparing nothing is right too.
  comparison or_nothing() const {
    comparison copy = *this;
    copy.may_be_empty_ = true;
    return copy;
  }

  /// The same for numbers that must differ: right where one does by more than its tolerance. A NaN is wrong here too.
  comparison differs() const {
    comparison copy = *this;
    copy.must_differ_ = true;
    return copy;
  }

  explicit operator bool() const {
    if (must_differ_) return sizes_.empty() && wrong_ > 0 && std::isfinite(worst_.badness);
    return sizes_.empty() && wrong_ == 0 && (count_ > 0 || may_be_empty_);
  }
  /// |got - want| of the worst element: the first NaN or infinite error, else the largest beside its tolerance.
  double worst_error() const { return count_ > 0 ? worst_.error : std::numeric_limits<double>::quiet_NaN(); }

  friend std::ostream& operator<<(std::ostream& out, const comparison& c) { return out << c.text(); }

 private:
  friend comparison near(double got, double want, const allowed_error& allowed, std::string what);

  struct element {
    double got = 0, want = 0, error = 0, tolerance = 0, badness = 0;
    std::size_t index = 0;
  };

  /// An infinite or NaN `want` is no scale.
  static double tolerance_of(double want, double largest, const allowed_error& allowed) {
    const double size = std::isfinite(want) ? std::abs(want) : 0;
    return allowed.absolute + allowed.relative * std::max(size, allowed.scale_at_least) +
           allowed.of_largest * std::max(largest, allowed.scale_at_least);
  }

  std::string text() const {
    std::ostringstream out;
    out.precision(9);
    out << what_;
    if (!sizes_.empty() || count_ == 0) {
      out << (what_.empty() ? "" : ": ") << (sizes_.empty() ? "nothing was compared" : sizes_);
      return out.str();
    }
    if (is_array_) out << '[' << worst_.index << ']';
    out << (what_.empty() && !is_array_ ? "" : ": ") << "got " << worst_.got << ", want " << worst_.want << " (error "
        << worst_.error << ", tolerance " << worst_.tolerance << ')';
    if (must_differ_)
      out << "; must differ by more";
    else if (is_array_)
      out << "; " << wrong_ << " of " << count_ << " wrong";
    return out.str();
  }

  std::string what_, sizes_;
  element worst_;
  std::size_t count_ = 0, wrong_ = 0;
  bool may_be_empty_ = false, must_differ_ = false, is_array_ = true;
};

/// Two numbers.
inline comparison near(double got, double want, const allowed_error& allowed, std::string what = {}) {
  comparison result(std::move(what));
  result.is_array_ = false;
  result.add(got, want, comparison::tolerance_of(want, std::isfinite(want) ? std::abs(want) : 0, allowed));
  return result;
}
/// Two arrays, element by element.
template <class Got, class Want>
requires(!std::is_arithmetic_v<Got> || !std::is_arithmetic_v<Want>) comparison
    near(const Got& got, const Want& want, const allowed_error& allowed, std::string what = {}) {
  comparison result(std::move(what));
  result.add_all(got, want, allowed);
  return result;
}

/// Two numbers within `tolerance`, absolutely or relative to |want|, whichever is more.
inline comparison close(double got, double want, double tolerance) {
  return near(got, want, {.relative = tolerance, .scale_at_least = 1});
}

/// The largest |x|, the scale of a tolerance; NaN where one is NaN, so that nothing passes.
template <class Numbers>
double largest_magnitude(const Numbers& numbers) {
  double largest = 0;
  for (const auto& x : numbers) {
    if (std::isnan(x)) return std::numeric_limits<double>::quiet_NaN();
    largest = std::max(largest, std::abs(static_cast<double>(x)));
  }
  return largest;
}

}  // namespace kd_test
