/// Numbers that remember how they were made, so that the derivative of a definition is exact and needs no formula of
/// its own: reverse accumulation, one pass for all of a row's derivatives. Griewank, Walther: Evaluating Derivatives,
/// 2008, section 3.2.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace kd_test {

class traced {
 public:
  traced(double constant = 0) : value_(constant) {}
  /// A number by which derivatives are taken.
  static traced variable(double value) { return made(value, {}, 0, {}, 0); }
  /// The derivatives of this one by all numbers so far, by their `place`. Forgets how all were made.
  std::vector<double> derivatives() const {
    std::vector<double> d(steps.size() + 1);
    d[place_] = 1;
    for (std::size_t i = steps.size(); i > 0; --i)
      for (const auto& [from, slope] : steps[i - 1].by)
        if (from != 0 && d[i] != 0) d[from] += d[i] * slope;
    steps.clear();
    return d;
  }
  std::size_t place() const { return place_; }
  double value() const { return value_; }

  friend traced operator+(traced a, traced b) { return made(a.value_ + b.value_, a, 1, b, 1); }
  friend traced operator-(traced a, traced b) { return made(a.value_ - b.value_, a, 1, b, -1); }
  friend traced operator*(traced a, traced b) { return made(a.value_ * b.value_, a, b.value_, b, a.value_); }
  friend traced operator/(traced a, traced b) {
    return made(a.value_ / b.value_, a, 1 / b.value_, b, -a.value_ / (b.value_ * b.value_));
  }
  friend traced exp(traced x) { return made(std::exp(x.value_), x, std::exp(x.value_), {}, 0); }
  friend traced log(traced x) { return made(std::log(x.value_), x, 1 / x.value_, {}, 0); }
  friend traced sqrt(traced x) { return made(std::sqrt(x.value_), x, 0.5 / std::sqrt(x.value_), {}, 0); }
  friend traced tanh(traced x) {
    const double cosine = std::cosh(x.value_);
    return made(std::tanh(x.value_), x, 1 / (cosine * cosine), {}, 0);
  }
  /// The subgradient at 0 is 0.
  friend traced abs(traced x) {
    const double sign = x.value_ > 0 ? 1 : x.value_ < 0 ? -1 : 0;
    return made(std::abs(x.value_), x, sign, {}, 0);
  }

 private:
  struct step {
    struct {
      std::size_t from;
      double slope;
    } by[2];
  };
  static traced made(double value, traced a, double by_a, traced b, double by_b) {
    traced out(value);
    steps.push_back({{{a.place_, by_a}, {b.place_, by_b}}});
    out.place_ = steps.size();
    return out;
  }
  static inline std::vector<step> steps;

  double value_;
  std::size_t place_ = 0;  // among the steps, from 1; constants have none
};

inline double value_of(double x) { return x; }
inline double value_of(traced x) { return x.value(); }

}  // namespace kd_test
