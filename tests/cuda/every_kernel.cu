// Every kernel that kd launches, compiled for every architecture: the launchers instantiate them, and what no launcher
// chooses alone is named here. cuda.registers.every_kernel finds a kernel that is missing.
#include "every_launcher.hpp"
#include "kd/formula/jensen_shannon.hpp"
#include "kd/formula/reverse_kl.hpp"
#include "kd/loss/cross_entropy.hpp"
#include "kd/loss/distillation.hpp"
#include "kd/loss/formula_of.hpp"
#include "kd/optim/all_rules.hpp"

namespace {

struct double_it {
  float* x;

  KD_HOST_DEVICE void operator()(std::size_t i) const { x[i] *= 2; }
};

template <class Loss, class Logit>
void run(const kd::cuda::stream& s, Logit* logits, std::byte* scratch) {
  const kd::kernel::dense_batch<Logit> dense{.rows = 1, .classes = 1, .student = {logits}, .teacher = {logits}};
  kd::formula::logit_batch<Logit> batch;
  batch.student = {logits};
  auto* const sums = reinterpret_cast<kd::formula::loss_sums*>(scratch);
  kd::cuda::logit_loss_forward_backward(s, dense, reinterpret_cast<const kd::formula_of<Loss>*>(scratch), scratch,
                                        sums);
  kd::cuda::logit_loss_forward_backward(s, batch, Loss{}, scratch, sums);
}
template <class Logit>
void losses(const kd::cuda::stream& s, Logit* logits, std::byte* scratch) {
  run<kd::cross_entropy>(s, logits, scratch);
  run<kd::distillation>(s, logits, scratch);
  run<kd::distillation_with<kd::formula::reverse_kl>>(s, logits, scratch);
}

template <class Loss>
void slices(const kd::cuda::stream& s, float* x, std::byte* scratch) {
  kd::formula::logit_batch<float> batch;
  batch.student = {x};
  const auto* const loss = reinterpret_cast<const Loss*>(scratch);
  auto* const rows = reinterpret_cast<kd::cuda::slice_row<Loss>*>(scratch);
  auto* const second = reinterpret_cast<kd::cuda::slice_sums<Loss>*>(scratch);
  kd::cuda::read_slice(s, batch, loss, {}, rows);
  kd::cuda::join_slices(s, loss, 1, 1, rows, rows);
  if constexpr (Loss::probability_sums > 0) {
    kd::cuda::sum_slice(s, batch, loss, {}, rows, second);
    kd::cuda::join_sums<Loss>(s, 1, 1, second, second);
  }
  kd::cuda::finish_slice(s, batch, loss, {}, rows, second, scratch, reinterpret_cast<kd::formula::loss_sums*>(scratch));
}

template <class Loss>
void top_k(const kd::cuda::stream& s, float* x, std::byte* scratch) {
  kd::formula::logit_batch<float> batch;
  batch.student = {x};
  batch.gradient = {x};
  kd::cuda::logit_loss_forward_backward(s, batch, kd::formula::top_k_rows<>{}, reinterpret_cast<const Loss*>(scratch),
                                        scratch, reinterpret_cast<kd::formula::loss_sums*>(scratch));
}

template <class Rule>
void updates(const kd::cuda::stream& s, const kd::cuda::update_plan& plan, float* x, std::byte* factors) {
  kd::cuda::update(s, plan, Rule{}, reinterpret_cast<kd::optim::factors_of<Rule>*>(factors), x, x, {}, nullptr);
}
template <class... Rules>
void all_updates(kd::type_list<Rules...>, const kd::cuda::stream& s, float* x, std::byte* factors) {
  const kd::cuda::update_plan plan(s, {});
  (updates<Rules>(s, plan, x, factors), ...);
}

}  // namespace

void kd_every_kernel(const kd::cuda::stream& s, float* x, kd::kernel::bfloat16* y, std::byte* scratch);
void kd_every_kernel(const kd::cuda::stream& s, float* x, kd::kernel::bfloat16* y, std::byte* scratch) {
  kd::cuda::for_each(s, 1, double_it{x});
  kd::cuda::expand_top_k(s, kd::formula::top_k_rows<>{}, {x});
  kd::cuda::expand_top_k(s, kd::formula::top_k_rows<kd::kernel::bfloat16, std::int64_t>{}, {x});
  kd::cuda::dist_columns_forward_backward(s, {.rows = 1, .classes = 1, .student = {x}, .teacher = {x}, .gradient = {x}},
                                          {}, scratch, nullptr);
  losses(s, x, scratch);
  losses(s, y, scratch);
  top_k<kd::formula::logit_loss<kd::formula::forward_kl>>(s, x, scratch);
  slices<kd::formula_of<kd::distillation>>(s, x, scratch);
  slices<kd::formula_of<kd::distillation_with<kd::formula::jensen_shannon>>>(s, x, scratch);
  all_updates(kd::optim::all_rules{}, s, x, scratch);
}
