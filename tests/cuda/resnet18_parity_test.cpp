#include "cuda/parity.hpp"

using namespace kd_test;

TEST_CASE("cuda ResNet18: steps agree with the CPU's and repeat to the bit", "[cuda][parity]") {
  check_parity(resnet18);
}
