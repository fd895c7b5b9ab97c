// expect: kd::train::trainer: the loss must say what it computes with formula
#include "kd/cpu/device.hpp"
#include "kd/models/simple_nn.hpp"
#include "kd/train/trainer.hpp"

struct squares {
  static constexpr const char* name = "squares";
  static constexpr bool needs_teacher = false;
};
using network = kd::network<kd::models::SimpleNN, kd::cpu::device>;
using refused = kd::train::trainer<network, squares, kd::optim::adam>;
std::size_t size() { return sizeof(refused); }
