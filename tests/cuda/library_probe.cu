// A shared library that trains with kd, on the GPU where there is one; see CMakeLists.txt for what is made of it.
#include "headers/probe.hpp"

#include <kd/kd.hpp>

namespace {

using namespace kd::nn;
using tiny_student = sequential<kd::image<3, 32, 32>, conv2d<4, 3, conv_options{.padding = 1}>, relu, max_pool2d<4>,
                                flatten, linear<10>>;

}  // namespace

extern "C" __attribute__((visibility("default"))) kd_probe_result kd_probe(int threads) {
  kd_probe_result result{};
  result.instruction_set = kd::instruction_set;
  const auto words = kd::random_at(1, kd::random_stream::shuffle, 2, 3, 4);
  for (std::size_t i = 0; i < 4; ++i) result.words[i] = words[i];

  const kd::data::dataset set = kd::data::synthetic_shapes({.train = 64, .test = 16});
  kd::with_device({.device = "auto", .threads = threads}, [&](auto& device) {
    kd::network<tiny_student, std::remove_reference_t<decltype(device)>> teacher(device, 2), student(device, 1);
    const auto epochs = kd::train::distil(student, teacher, set, kd::distillation{},
                                          kd::optim::adam{.learning_rate = 1e-3}, {.epochs = 2, .batch_size = 16});
    result.first_loss = epochs.front().loss;
    result.last_loss = epochs.back().loss;
  });

  try {
    kd::reject_argument("probe", "wants 1", 2, "this is a test");
  } catch (const kd::argument_error&) {
    result.caught = true;
  }
  return result;
}
