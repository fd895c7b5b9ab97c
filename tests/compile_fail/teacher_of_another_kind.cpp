// expect: the teacher must be no_teacher, cached_teacher or live_teacher
#include "kd/cpu/device.hpp"
#include "kd/models/simple_nn.hpp"
#include "kd/train/trainer.hpp"

using network = kd::network<kd::models::SimpleNN, kd::cpu::device>;
struct two_teachers {
  network* network;
  ::network* second;
};
template class kd::train::trainer<network, kd::distillation, kd::optim::adam, two_teachers>;
