// expect: a distillation loss needs a teacher: pass logits or a network
#include "kd/cpu/device.hpp"
#include "kd/models/simple_nn.hpp"
#include "kd/train/trainer.hpp"

using network = kd::network<kd::models::SimpleNN, kd::cpu::device>;
template class kd::train::trainer<network, kd::distillation, kd::optim::adam>;
