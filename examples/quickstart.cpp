/// Distil a small student from a larger teacher, evaluate it, save it.
#include <kd/kd.hpp>

#include <cstdio>

// A student of your own: its shapes and its parameters are constants, and a wrong shape is a compile error.
using namespace kd::nn;
using Student = sequential<kd::image<3, 32, 32>,                                            //
                           conv2d<8, 3, conv_options{.padding = 1}>, relu, max_pool2d<2>,   // [N,8,16,16]
                           conv2d<16, 3, conv_options{.padding = 1}>, relu, max_pool2d<2>,  // [N,16,8,8]
                           flatten, linear<32>, relu, dropout<0.1f>, linear<10>>;           // [N,10]
static_assert(plan_of<Student>::parameter_count == 34'522);

int main(int argc, char** argv) try {
  // CIFAR-10 where KD_DATA names its folder; otherwise drawn shapes, so that this runs anywhere.
  const kd::data::dataset set = kd::data::open({.synthetic = {.train = 4096, .test = 1000}});

  // The GPU where there is one and this file was compiled for it; quickstart cpu and quickstart cuda choose.
  kd::with_device({.device = argc > 1 ? argv[1] : "auto"}, [&]<class Device>(Device& device) {
    kd::network<kd::models::LightNN, Device> teacher(device, 1);
    kd::train::fit(teacher, set, kd::optim::adam{.learning_rate = 1e-3},
                   {.epochs = 3, .name = "teacher", .show = stderr});

    kd::network<Student, Device> student(device, 2);
    kd::train::distil(student, teacher, set, kd::distillation{.temperature = 2, .kd_weight = 0.25f, .ce_weight = 0.75f},
                      kd::optim::adam{.learning_rate = 1e-3}, {.epochs = 3, .name = "student", .show = stderr});

    std::printf("%s", summary<Student>().c_str());
    std::printf("teacher: %.1f %% of the test images, student: %.1f %%\n",
                kd::train::evaluate(teacher, set.test).top1_percent(),
                kd::train::evaluate(student, set.test).top1_percent());
    kd::train::save_weights(student, "student.safetensors");
  });
} catch (const std::exception& e) {
  std::fprintf(stderr, "quickstart: %s\n", e.what());
  return 1;
}
