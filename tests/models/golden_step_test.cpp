/// One training step of each network on the CPU device against PyTorch's values.
#include "models/golden_step.hpp"

using namespace kd_test;

namespace {

template <class Model>
void check_step(const std::string& file, double tolerance) {
  kd::cpu::device cpu(2);
  check_golden_step<Model>(cpu, file, tolerance);
}
template <class Model>
void check_evaluation_of(const std::string& file, double tolerance) {
  kd::cpu::device cpu(2);
  check_evaluation<Model>(cpu, file, tolerance);
}

}  // namespace

// 1e-4 relative is what the project promises; PyTorch's own float32 run agrees with its float64 run to 1e-5.
TEST_CASE("golden step: SimpleNN matches PyTorch", "[models][golden]") {
  check_step<kd::models::SimpleNN>("simple_nn_step.safetensors", 1e-4);
}
TEST_CASE("golden step: LightNN matches PyTorch", "[models][golden]") {
  check_step<kd::models::LightNN>("light_nn_step.safetensors", 1e-4);
}
TEST_CASE("golden step: ResNet18 matches PyTorch", "[models][golden]") {
  check_step<kd::models::ResNet18>("resnet18_step.safetensors", 1e-4);
}

TEST_CASE("evaluation: the three networks match PyTorch's evaluation mode", "[models][golden]") {
  check_evaluation_of<kd::models::SimpleNN>("simple_nn_step.safetensors", 1e-4);
  check_evaluation_of<kd::models::LightNN>("light_nn_step.safetensors", 1e-4);
  check_evaluation_of<kd::models::ResNet18>("resnet18_step.safetensors", 1e-4);
}

TEST_CASE("a state dict that PyTorch saved loads and gives PyTorch's logits", "[models][golden][weights]") {
  const golden_file file("simple_nn_step.safetensors");
  kd::cpu::device cpu(1);
  kd::network<kd::models::SimpleNN, kd::cpu::device> network(cpu, 7);
  kd::train::load_weights(network, golden("simple_nn_state_dict.safetensors"));
  const auto want = file.values("eval/logits");
  const auto got = kd::train::predict(network, images(want.size() / 10, file.seed).train.images);
  CHECK(near(got.elements(), want, {.of_largest = 1e-5}));
}
