// The smallest program that uses an installed kd: a student of its own, distilled for one epoch on drawn images.
#include <kd/kd.hpp>

#include <cstdio>
#include <exception>

using namespace kd::nn;
using Student = sequential<kd::image<3, 32, 32>,                                           //
                           conv2d<8, 3, conv_options{.padding = 1}>, relu, max_pool2d<4>,  // [N,8,8,8]
                           flatten, linear<10>>;                                           // [N,10]
static_assert(plan_of<Student>::parameter_count == 5'354);

int main() try {
  const kd::data::dataset set = kd::data::synthetic_shapes({.train = 64, .test = 16});
  kd::cpu::device device(1);
  kd::network<Student, kd::cpu::device> teacher(device, 1), student(device, 2);
  const auto epochs = kd::train::distil(student, teacher, set, kd::distillation{.temperature = 2},
                                        kd::optim::adam{.learning_rate = 1e-3}, {.epochs = 1, .batch_size = 16});
  std::printf("kd %s on %s: loss %.4f\n", kd::version, device.description().c_str(), epochs.back().loss);
} catch (const std::exception& e) {
  std::fprintf(stderr, "downstream: %s\n", e.what());
  return 1;
}
