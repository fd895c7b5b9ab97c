/// One training step of each network on the CUDA device against PyTorch's values.
#include "models/golden_step.hpp"

using namespace kd_test;

TEST_CASE("cuda golden step: SimpleNN matches PyTorch", "[cuda][models][golden]") {
  kd::cuda::device gpu;
  check_golden_step<kd::models::SimpleNN>(gpu, "simple_nn_step.safetensors", 1e-4);
  check_evaluation<kd::models::SimpleNN>(gpu, "simple_nn_step.safetensors", 1e-4);
}
TEST_CASE("cuda golden step: LightNN matches PyTorch", "[cuda][models][golden]") {
  kd::cuda::device gpu;
  check_golden_step<kd::models::LightNN>(gpu, "light_nn_step.safetensors", 1e-4);
  check_evaluation<kd::models::LightNN>(gpu, "light_nn_step.safetensors", 1e-4);
}
TEST_CASE("cuda golden step: ResNet18 matches PyTorch", "[cuda][models][golden]") {
  kd::cuda::device gpu;
  check_golden_step<kd::models::ResNet18>(gpu, "resnet18_step.safetensors", 1e-4);
  check_evaluation<kd::models::ResNet18>(gpu, "resnet18_step.safetensors", 1e-4);
}
