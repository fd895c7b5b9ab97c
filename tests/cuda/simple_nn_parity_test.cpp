#include "cuda/parity.hpp"

using namespace kd_test;

TEST_CASE("cuda SimpleNN: distilled steps agree with the CPU's and repeat to the bit", "[cuda][parity]") {
  check_parity(simple_nn_distilled);
}
