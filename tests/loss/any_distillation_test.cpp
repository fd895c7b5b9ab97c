#include "kd/loss/any_distillation.hpp"

#include <string>
#include <vector>

#include "kd/loss/soft_capped.hpp"
#include "kd/loss/weighted_sum.hpp"
#include "kd/train/recipe.hpp"
#include "support/catch.hpp"
#include "support/message.hpp"
#include "support/tiny.hpp"

using namespace kd_test;

namespace {

using tiny = kd::network<TinyNet, kd::cpu::device>;

/// What a run of two epochs of the loss ends with, and its recipe.
struct run_of_a_loss {
  std::vector<kd::train::epoch_record> history;
  std::vector<float> weights;
  std::string recipe;
};
template <class Loss>
run_of_a_loss run_with(const Loss& loss, std::vector<kd::train::ramp> ramps = {}) {
  kd::cpu::device cpu(1);
  const auto set = quadrants(64, 8);
  tiny teacher(cpu, 1), student(cpu, 2);
  const auto logits = kd::train::predict(teacher, set.train.images);
  const kd::optim::adam adam{.learning_rate = 3e-3};
  const kd::train::options settings{.epochs = 2, .batch_size = 32, .ramps = std::move(ramps)};
  run_of_a_loss run;
  run.history = kd::train::distil(student, logits, set, loss, adam, settings);
  run.weights.assign(student.parameters(), student.parameters() + tiny::parameter_floats);
  run.recipe = kd::train::recipe<TinyNet>(loss, adam, settings, {}).dump();
  return run;
}
void check_same(const run_of_a_loss& got, const run_of_a_loss& want) {
  CHECK(got.weights == want.weights);
  REQUIRE(got.history.size() == want.history.size());
  for (std::size_t e = 0; e < want.history.size(); ++e) {
    CHECK(got.history[e].loss == want.history[e].loss);
    REQUIRE(got.history[e].terms.size() == want.history[e].terms.size());
    for (std::size_t i = 0; i < want.history[e].terms.size(); ++i) {
      CHECK(got.history[e].terms[i].name == want.history[e].terms[i].name);
      CHECK(got.history[e].terms[i].value == want.history[e].terms[i].value);
    }
  }
}

}  // namespace

TEST_CASE("any_distillation: trains, reports and is described as the loss that it holds", "[loss][any_distillation]") {
  const kd::distillation usual{.temperature = 4};
  const kd::distillation_with<kd::formula::jensen_shannon> other{
      .temperature = 1.5f, .kd_weight = 0.5f, .divergence = {.beta = 0.2f}};
  const auto check = [](const auto& loss, const std::vector<kd::train::ramp>& ramps) {
    const run_of_a_loss want = run_with(loss, ramps), got = run_with(kd::any_distillation(loss), ramps);
    check_same(got, want);
    CHECK(got.recipe == want.recipe);
  };
  check(usual, {});
  check(other, {});
  check(other, {{.option = "divergence.beta", .from = 0.5, .epochs = 2}});
  CHECK(run_with(usual).weights != run_with(other).weights);
}

TEST_CASE("any_distillation: every divergence by its name, an unknown name is an error that lists them",
          "[loss][any_distillation][errors]") {
  kd::formula::divergences::each([]<class Divergence>(const Divergence&) {
    const kd::any_distillation loss = kd::any_distillation::with(Divergence::name);
    CHECK(loss.name == kd::distillation_with<Divergence>::name);
    CHECK(std::holds_alternative<kd::distillation_with<Divergence>>(loss.chosen()));
  });
  CHECK(holds(message_of<kd::argument_error>([] { kd::any_distillation::with("kl"); }), "one of forward_kl, reverse_kl",
              "received kl"));
  kd::any_distillation loss = kd::any_distillation::with("jensen_shannon");
  kd::each_option(loss, []<class Value>(const std::string& name, Value& value, const auto&) {
    if (name == "divergence.beta") value = static_cast<Value>(2);
  });
  CHECK(holds(message_of<kd::argument_error>([&] { loss.validate(); }),
              "jensen_shannon: beta must be a number in [0,1]"));
}

TEST_CASE("weighted_sum: trains as the distillation of the same terms, each of its options with a name and a ramp",
          "[loss][weighted_sum]") {
  using kd::formula::cross_entropy, kd::formula::forward_kl;
  const kd::distillation loss{.temperature = 3, .kd_weight = 0.5f, .ce_weight = 0.25f};
  const kd::weighted_sum sum{kd::softening{.temperature = 3}, kd::weighted_term{0.5f, forward_kl{}},
                             kd::weighted_term{0.25f, cross_entropy{}}};
  const run_of_a_loss got = run_with(sum);
  check_same(got, run_with(loss));
  CHECK(holds(got.recipe, "\"weighted_sum\"", "\"0.weight\"", "\"1.weight\"", "\"temperature\""));
  check_same(run_with(sum, {{.option = "0.weight", .from = 0, .epochs = 2}}),
             run_with(loss, {{.option = "kd_weight", .from = 0, .epochs = 2}}));
}

TEST_CASE("soft_capped: trains as the loss itself where nothing is capped, and otherwise where something is",
          "[loss][soft_capped]") {
  const kd::distillation loss{.temperature = 3};
  check_same(run_with(kd::soft_capped{loss}), run_with(loss));
  const run_of_a_loss capped = run_with(kd::soft_capped{loss, kd::soft_cap{.cap = 0.5f}});
  CHECK(capped.weights != run_with(loss).weights);
  CHECK(holds(capped.recipe, "\"student_cap\"", "\"temperature\""));
}
