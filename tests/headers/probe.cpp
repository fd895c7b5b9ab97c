// Uses kd under the flags and the name it is compiled with; see CMakeLists.txt for the programs made of it.
#include "probe.hpp"

#include "everything.hpp"

namespace {

using namespace kd::nn;
using tiny_student = sequential<kd::image<3, 32, 32>, conv2d<4, 3, conv_options{.padding = 1}>, relu, max_pool2d<4>,
                                flatten, linear<10>>;

}  // namespace

extern "C" __attribute__((visibility("default"))) kd_probe_result KD_PROBE(int threads) {
  kd_probe_result result{};
  result.instruction_set = kd::instruction_set;
  const auto words = kd::random_at(1, kd::random_stream::shuffle, 2, 3, 4);
  for (std::size_t i = 0; i < 4; ++i) result.words[i] = words[i];

  const kd::data::dataset set = kd::data::synthetic_shapes({.train = 64, .test = 16});
  kd::tensor<float, 2> teacher_logits({64, 10});
  for (std::size_t i = 0; i < 64; ++i)
    teacher_logits.data()[i * 10 + static_cast<std::size_t>(set.train.labels[i])] = 4;
  kd::cpu::device device(threads);
  kd::network<tiny_student, kd::cpu::device> student(device, 1);
  const auto epochs = kd::train::distil(student, teacher_logits, set, kd::distillation{},
                                        kd::optim::adam{.learning_rate = 1e-3}, {.epochs = 2, .batch_size = 16});
  result.first_loss = epochs.front().loss;
  result.last_loss = epochs.back().loss;

  try {
    kd::reject_argument("probe", "wants 1", 2, "this is a test");
  } catch (const kd::argument_error&) {
    result.caught = true;
  }
  return result;
}
