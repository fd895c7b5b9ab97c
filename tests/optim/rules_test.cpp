#include "kd/optim/rule.hpp"

#include <initializer_list>
#include <limits>
#include <string>
#include <type_traits>

#include "kd/optim/all_rules.hpp"
#include "support/catch.hpp"
#include "support/message.hpp"
#include "support/rules.hpp"

using kd::optim::adam;
using kd::optim::adamw;
using kd::optim::lion;
using kd::optim::sgd;
using kd_test::for_each_rule;
using kd_test::holds;

namespace {

template <class Rule>
std::string refusal_of(const Rule& rule) {
  return kd_test::message_of<kd::argument_error>([&] { kd::optim::validate(rule); });
}

struct without_step {
  double learning_rate = 0.1;

  static constexpr const char* name = "without_step";
  static constexpr int states = 0;
  static constexpr void options(auto&& each) {
    each(kd::formula::option{"learning_rate", &without_step::learning_rate, 0, 1, "0.1 is usual"});
  }
  constexpr bool keeps_weights_without_gradient() const { return true; }
  float factors(double rate, std::uint64_t) const { return static_cast<float>(rate); }
};

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinite = std::numeric_limits<double>::infinity();

}  // namespace

TEST_CASE("optim: an option that is no number, infinite or out of its limits is rejected by name", "[optim][errors]") {
  for_each_rule([]<class Rule>(const Rule& rule) {
    CHECK(refusal_of(Rule{}) == kd_test::nothing_thrown);
    CHECK(refusal_of(rule) == kd_test::nothing_thrown);
    Rule::options([&](const auto& option) {
      using value = typename std::remove_cvref_t<decltype(option)>::value_type;
      if constexpr (!std::is_same_v<value, bool>) {
        const auto refused = [&](double x) {
          Rule one = rule;
          one.*option.member = static_cast<value>(x);
          return holds(refusal_of(one), kd::text("kd::optim::", Rule::name, ": ", option.name, " must be "),
                       kd::text("; ", option.usual));
        };
        CAPTURE(Rule::name, option.name);
        for (const double bad : {not_a_number, infinite, -infinite}) CHECK(refused(bad));
        if (option.least == 0) CHECK(refused(-1e-9));
        if (!option.most_allowed) CHECK(refused(option.most));
      }
    });
  });
}

TEST_CASE("optim: the limits themselves", "[optim]") {
  CHECK(refusal_of(adam{.learning_rate = 0, .beta1 = 0, .beta2 = 0, .epsilon = 0}) == kd_test::nothing_thrown);
  CHECK(refusal_of(adamw{.beta1 = 1}) != kd_test::nothing_thrown);
  CHECK(refusal_of(sgd{.momentum = 0.9, .dampening = -0.5}) == kd_test::nothing_thrown);
  CHECK(refusal_of(sgd{.momentum = 1.5}) == kd_test::nothing_thrown);
  CHECK(refusal_of(lion{.beta2 = 1}) != kd_test::nothing_thrown);
}

TEST_CASE("optim: the message names option, rule, value and remedy", "[optim][errors]") {
  CHECK(refusal_of(adam{.learning_rate = -0.5}) ==
        "kd::optim::adam: learning_rate must be finite and not negative, received -0.5; 0.001 is usual");
  CHECK(refusal_of(adamw{.beta2 = 1.5}) ==
        "kd::optim::adamw: beta2 must be a number in [0,1), received 1.5; 0.999 is usual");
  CHECK(refusal_of(sgd{.dampening = infinite}) == "kd::optim::sgd: dampening must be finite, received inf; 0 is usual");
}

TEST_CASE("optim: nesterov needs momentum and no dampening", "[optim][sgd][errors]") {
  CHECK(refusal_of(sgd{.momentum = 0.9, .nesterov = true}) == kd_test::nothing_thrown);
  CHECK(holds(refusal_of(sgd{.nesterov = true}), "kd::optim::sgd: nesterov needs momentum above 0: set it",
              "momentum 0,"));
  CHECK(refusal_of(sgd{.momentum = 0.9, .dampening = 0.1, .nesterov = true}) ==
        "kd::optim::sgd: nesterov needs dampening 0: leave dampening out; received learning_rate 0.001, momentum 0.9, "
        "dampening 0.1, weight_decay 0, nesterov true");
}

TEST_CASE("optim: weights without gradient may be skipped only where nothing else moves them", "[optim]") {
  CHECK(adam{}.keeps_weights_without_gradient());
  CHECK_FALSE(adam{.weight_decay = 0.1}.keeps_weights_without_gradient());
  CHECK_FALSE(adam{.epsilon = 0}.keeps_weights_without_gradient());  // 0 / 0 is NaN there
  CHECK_FALSE(adamw{}.keeps_weights_without_gradient());
  CHECK(adamw{.weight_decay = 0}.keeps_weights_without_gradient());
  CHECK(sgd{.momentum = 0.9}.keeps_weights_without_gradient());
  CHECK_FALSE(sgd{.weight_decay = 0.1}.keeps_weights_without_gradient());
  CHECK(lion{}.keeps_weights_without_gradient());
  CHECK_FALSE(lion{.weight_decay = 0.1}.keeps_weights_without_gradient());
}

TEST_CASE("optim: what is derived from a rule, or lacks a part of one, is none", "[optim]") {
  struct other_adam : adam {};
  CHECK(kd::optim::rule<adam>);
  CHECK(kd::optim::rule<kd_test::sign_descent>);
  CHECK_FALSE(kd::optim::rule<other_adam>);
  CHECK_FALSE(kd::optim::rule<without_step>);
  CHECK_FALSE(kd::optim::rule<double>);
}
