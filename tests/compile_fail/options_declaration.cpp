// expect: kd::formula::option: an option must be a float, a double or a bool
// expect: kd::formula::option: a number needs its limits
// expect: kd::validate_options: these options are those of the base
// expect: kd::optim::validate: every member of a rule must be declared in its options
#include "kd/core/options.hpp"
#include "kd/optim/rule.hpp"

struct mine {
  double learning_rate = 1, forgotten = 2;
  int count = 3;

  static constexpr const char* name = "mine";
  static constexpr int states = 0;
  static constexpr void options(auto&& each) {
    each(kd::formula::option{"learning_rate", &mine::learning_rate, 0, 1, "1 is usual"});
  }
  constexpr bool keeps_weights_without_gradient() const { return true; }
  float factors(double rate, std::uint64_t) const { return static_cast<float>(rate); }
  template <class Math, class Real>
  KD_FORMULA static void step(Real& w, Real g, Real*, float rate) {
    w = Math::fma(-rate, g, w);
  }
};
struct derived : mine {};

constexpr kd::formula::option count{"count", &mine::count, 0, 10, "3 is usual"};
constexpr kd::formula::option without_limits{"learning_rate", &mine::learning_rate, "1 is usual"};

void check() {
  kd::validate_options("derived", derived{});
  kd::optim::validate(mine{});
}
