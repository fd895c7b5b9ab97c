// expect: the teacher's classes must equal the student's
// expect: 100 == 10
#include "kd/cpu/device.hpp"
#include "kd/models/simple_nn.hpp"
#include "kd/train/fit.hpp"

void distil(kd::network<kd::models::SimpleNN, kd::cpu::device>& student,
            kd::network<kd::models::SimpleNNOf<100>, kd::cpu::device>& teacher, const kd::data::dataset& set) {
  kd::train::distil(student, teacher, set, {}, kd::optim::adam{});
}
