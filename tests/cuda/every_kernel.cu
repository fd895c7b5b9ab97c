// Every kernel that kd launches, compiled for every architecture: the launchers instantiate them, and what no launcher
// chooses alone is named here. cuda.registers.every_kernel finds a kernel that is missing.
#include "every_launcher.hpp"

namespace {

struct double_it {
  float* x;

  KD_HOST_DEVICE void operator()(std::size_t i) const { x[i] *= 2; }
};

}  // namespace

void kd_every_kernel(const kd::cuda::stream& s, float* x);
void kd_every_kernel(const kd::cuda::stream& s, float* x) { kd::cuda::for_each(s, 1, double_it{x}); }
