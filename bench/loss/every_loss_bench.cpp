// Every loss of kd/formula/losses.hpp and its gradient, from small rows in cache to a vocabulary in memory.
// Arguments: rows, classes. Bytes: student and teacher logits read once, the gradient written once.

#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "kd/cpu/logit_loss.hpp"
#include "kd/formula/losses.hpp"
#include "kd/loss/distillation.hpp"
#include "kd/loss/soft_capped.hpp"
#include "kd/loss/weighted_sum.hpp"
#include "loss/logits.hpp"

namespace {

template <class Loss>
void add(const std::string& name, const Loss& loss) {
  const std::size_t shapes[][2] = {{128, 10}, {128, 1000}, {1024, 32000}};
  for (const auto& [rows, classes] : shapes)
    benchmark::RegisterBenchmark(kd::text(name, "/cpu/", rows, "x", classes).c_str(),
                                 [loss, rows = rows, classes = classes](benchmark::State& state) {
                                   kd_bench::logits in(rows, classes);
                                   const kd::cpu::parallel par;
                                   const auto batch = in.batch();
                                   std::vector<std::byte> scratch(kd::cpu::logit_loss_scratch(par, rows, classes));
                                   for (auto _ : state) {
                                     const auto result =
                                         kd::cpu::logit_loss_forward_backward(par, batch, loss, scratch);
                                     benchmark::DoNotOptimize(result.terms.total);
                                     benchmark::ClobberMemory();
                                   }
                                   state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(in.bytes()));
                                 })
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
}

template <class... Terms>
void add_sum(kd::formula::list<Terms...>) {
  std::string name;
  ((name += (name.empty() ? "" : "+") + std::string(Terms::name)), ...);
  add(name, kd::weighted_sum{kd::softening{.temperature = 2}, kd::weighted_term<Terms>{}...});
}

void add_all() {
  kd::formula::divergences::each([]<class Divergence>(const Divergence&) {
    add(Divergence::name + std::string("+cross_entropy"), kd::distillation_with<Divergence>{});
  });
  kd::formula::hard_terms::each([]<class Term>(const Term&) { add_sum(kd::formula::list<Term>{}); });
  kd::formula::mixtures::each([](const auto& terms) { add_sum(terms); });
  add("soft_capped distillation",
      kd::soft_capped{kd::distillation{}, kd::soft_cap{.cap = 30}, kd::soft_cap{.cap = 30}});
}

[[maybe_unused]] const bool added = (add_all(), true);

}  // namespace
