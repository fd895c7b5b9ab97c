// A program of another project, compiled by nvcc: the CUDA device is in it, and is used where there is a GPU.
#include <kd/kd.hpp>

#include <cstdio>
#include <exception>

using namespace kd::nn;
using Student = sequential<kd::image<3, 32, 32>,                                           //
                           conv2d<8, 3, conv_options{.padding = 1}>, relu, max_pool2d<4>,  // [N,8,8,8]
                           flatten, linear<10>>;                                           // [N,10]
static_assert(kd::cuda::device::built, "the CUDA device must be the real one in a file that nvcc compiles");

int main() try {
  const kd::data::dataset set = kd::data::synthetic_shapes({.train = 64, .test = 16});
  kd::with_device({.device = "auto", .threads = 1}, [&](auto& device) {
    using device_type = std::remove_reference_t<decltype(device)>;
    kd::network<Student, device_type> teacher(device, 1), student(device, 2);
    const auto epochs = kd::train::distil(student, teacher, set, kd::distillation{.temperature = 2},
                                          kd::optim::adam{.learning_rate = 1e-3}, {.epochs = 1, .batch_size = 16});
    std::printf("kd %s on %s: loss %.4f\n", kd::version, device.description().c_str(), epochs.back().loss);
  });
} catch (const std::exception& e) {
  std::fprintf(stderr, "downstream: %s\n", e.what());
  return 1;
}
