// Every kernel that kd launches, compiled for every architecture: the launchers instantiate them, and what no launcher
// chooses alone is named here. cuda.registers.every_kernel finds a kernel that is missing.
#include "every_launcher.hpp"

namespace {

struct double_it {
  float* x;

  KD_HOST_DEVICE void operator()(std::size_t i) const { x[i] *= 2; }
};

template <class Logit>
void losses(const kd::cuda::stream& s, Logit* logits, const float* options, std::byte* scratch) {
  auto* const sums = reinterpret_cast<kd::kernel::loss_sums*>(scratch);
  kd::cuda::cross_entropy_forward_backward<Logit>(s, 1, 1, logits, nullptr, logits, scratch, sums);
  kd::cuda::distillation_forward_backward<Logit>(s, 1, 1, logits, logits, nullptr, options, logits, scratch, sums);
}

}  // namespace

void kd_every_kernel(const kd::cuda::stream& s, float* x, kd::kernel::bfloat16* y, std::byte* scratch);
void kd_every_kernel(const kd::cuda::stream& s, float* x, kd::kernel::bfloat16* y, std::byte* scratch) {
  kd::cuda::for_each(s, 1, double_it{x});
  losses(s, x, x, scratch);
  losses(s, y, x, scratch);
}
