#include "support/cpu_loss_engine.hpp"

namespace {

using namespace kd::formula;

// Each way in which an engine is asked for something: moments, probability sums, logit sums, the label apart.
using kinds = list<reverse_kl, jensen_shannon, logit_mse, dkd>;

template <std::size_t Width>
void check() {
  kd_test::every_loss<kinds, 0, 1>([](const auto& term) {
    kd_test::check_edge_rows<kd_test::cpu_loss_engine<Width>>([&](float T) { return kd_test::alone(term, T); });
  });
}

}  // namespace

TEST_CASE("losses of the CPU: the portable twin and every width of vectors", "[cpu][loss]") {
  check<1>();
  check<4>();
  check<8>();
  check<16>();
}
