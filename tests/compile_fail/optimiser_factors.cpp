// expect: kd::train::trainer: the optimiser's factors must be plain numbers, at most 32 bytes of them
#include "kd/cpu/device.hpp"
#include "kd/nn/layers.hpp"
#include "kd/train/trainer.hpp"

struct too_many {
  float numbers[9];
};
struct large {
  double learning_rate = 0.1;

  static constexpr const char* name = "large";
  static constexpr int states = 0;
  static constexpr void options(auto&& each) {
    each(kd::formula::option{"learning_rate", &large::learning_rate, 0, 1, "0.1 is usual"});
  }
  constexpr bool keeps_weights_without_gradient() const { return true; }
  too_many factors(double rate, std::uint64_t) const { return {{static_cast<float>(rate)}}; }
  template <class Math, class Real>
  KD_FORMULA static void step(Real& w, Real g, Real*, const too_many& f) {
    w = Math::fma(-f.numbers[0], g, w);
  }
};

using network = kd::network<kd::nn::sequential<kd::row<2>, kd::nn::linear<2>>, kd::cpu::device>;
template class kd::train::trainer<network, kd::cross_entropy, large>;
