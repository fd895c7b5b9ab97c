#include <initializer_list>
#include <limits>
#include <string>

#include "kd/optim/adam.hpp"
#include "kd/optim/sgd.hpp"
#include "support/catch.hpp"
#include "support/message.hpp"

using kd::optim::adam;
using kd::optim::adamw;
using kd::optim::sgd;

namespace {

template <class Rule>
std::string refusal_of(const Rule& rule) {
  return kd_test::message_of<kd::argument_error>([&] { rule.validate(); });
}

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinite = std::numeric_limits<double>::infinity();

}  // namespace

TEMPLATE_TEST_CASE("adam, adamw: options out of range are rejected", "[optim][adam]", adam, adamw) {
  CHECK_NOTHROW(TestType{}.validate());
  CHECK_NOTHROW(TestType{.learning_rate = 0, .beta1 = 0, .beta2 = 0, .epsilon = 0, .weight_decay = 0}.validate());
  for (const double bad : {not_a_number, -1e-9, infinite}) {
    CHECK_THROWS_AS(TestType{.learning_rate = bad}.validate(), kd::argument_error);
    CHECK_THROWS_AS(TestType{.beta1 = bad}.validate(), kd::argument_error);
    CHECK_THROWS_AS(TestType{.beta2 = bad}.validate(), kd::argument_error);
    CHECK_THROWS_AS(TestType{.epsilon = bad}.validate(), kd::argument_error);
    CHECK_THROWS_AS(TestType{.weight_decay = bad}.validate(), kd::argument_error);
  }
  CHECK_THROWS_AS(TestType{.beta1 = 1}.validate(), kd::argument_error);
  CHECK_THROWS_AS(TestType{.beta2 = 1}.validate(), kd::argument_error);
}

TEST_CASE("adam: the message names option, rule, value and remedy", "[optim][adam]") {
  CHECK(refusal_of(adam{.learning_rate = -0.5}) ==
        "kd::optim::adam: learning_rate must be finite and at least 0, received -0.5; 0.001 is usual");
  CHECK(refusal_of(adamw{.beta2 = 1.5}) ==
        "kd::optim::adamw: beta2 must be in [0, 1), received 1.5; 0.9 and 0.999 are usual");
}

TEST_CASE("sgd: options out of range are rejected", "[optim][sgd]") {
  CHECK_NOTHROW(sgd{}.validate());
  CHECK_NOTHROW(sgd{.momentum = 0.9, .dampening = -0.5}.validate());
  CHECK_NOTHROW(sgd{.momentum = 0.9, .nesterov = true}.validate());
  for (const double bad : {not_a_number, -1e-9, infinite}) {
    CHECK_THROWS_AS(sgd{.learning_rate = bad}.validate(), kd::argument_error);
    CHECK_THROWS_AS(sgd{.momentum = bad}.validate(), kd::argument_error);
    CHECK_THROWS_AS(sgd{.weight_decay = bad}.validate(), kd::argument_error);
  }
  CHECK_THROWS_AS(sgd{.dampening = not_a_number}.validate(), kd::argument_error);
  CHECK_THROWS_AS(sgd{.nesterov = true}.validate(), kd::argument_error);
  CHECK(refusal_of(sgd{.momentum = 0.9, .dampening = 0.1, .nesterov = true}) ==
        "kd::optim::sgd: nesterov needs dampening 0, received 0.1; leave dampening out");
}

TEST_CASE("optim: weights without gradient may be skipped only where nothing else moves them", "[optim]") {
  CHECK(adam{}.keeps_weights_without_gradient());
  CHECK_FALSE(adam{.weight_decay = 0.1}.keeps_weights_without_gradient());
  CHECK_FALSE(adam{.epsilon = 0}.keeps_weights_without_gradient());  // 0 / 0 is NaN there
  CHECK_FALSE(adamw{}.keeps_weights_without_gradient());
  CHECK(adamw{.weight_decay = 0}.keeps_weights_without_gradient());
  CHECK(sgd{.momentum = 0.9}.keeps_weights_without_gradient());
  CHECK_FALSE(sgd{.weight_decay = 0.1}.keeps_weights_without_gradient());
}
