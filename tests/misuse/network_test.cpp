/// A network's own calls: passes that do not follow from input(), tensors of other networks, two threads at once.
#include <kd/kd.hpp>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/message.hpp"
#include "support/tiny.hpp"

using namespace kd_test;
using device = kd::cpu::device;
using tiny = kd::network<TinyNet, device>;

namespace {

template <class Call>
std::string refused(const Call& call) {
  return message_of<kd::argument_error>(call);
}

}  // namespace

TEST_CASE("misuse: a pass that is not that of the last input", "[misuse][network]") {
  device cpu(1);
  tiny net(cpu, 1);
  CHECK(holds(refused([&] { (void)net.forward_infer(4); }), "kd::network::forward_infer", "received batch 4",
              "call input()"));
  (void)net.input(4, false);
  CHECK(holds(refused([&] { (void)net.forward_infer(64); }), "kd::network::forward_infer",
              "batch 4 in evaluation, received batch 64 in evaluation", "call input()"));
  CHECK(holds(refused([&] { (void)net.forward_train(4, {}); }), "kd::network::forward_train",
              "batch 4 in evaluation, received batch 4 in training", "call input()"));
  CHECK(holds(refused([&] { net.backward(4, {}); }), "kd::network::backward", "received batch 4 in training"));
  CHECK(holds(refused([&] { (void)net.logits_gradient(4); }), "kd::network::logits_gradient", "call input()"));
  CHECK_NOTHROW(net.forward_infer(4));
  net.reserve(1000, true);  // the input was in memory that is gone
  CHECK(holds(refused([&] { (void)net.forward_infer(4); }), "batch 0", "received batch 4", "call input()"));
  (void)net.input(4, true);
  CHECK_NOTHROW(net.forward_train(4, {}));
  std::fill_n(net.logits_gradient(4), net.device().padded(4) * 4, 0.0f);
  CHECK_NOTHROW(net.backward(4, {}));
}

TEST_CASE("misuse: a tensor of another network", "[misuse][network]") {
  device cpu(1);
  tiny net(cpu, 1);
  using large = kd::network<kd::models::SimpleNN, device>;
  const kd::nn::tensor_info& other = large::plan::tensors.back();
  const std::vector<float> values(other.spec.size());
  CHECK(holds(refused([&] { net.write(other, values.data()); }), "kd::network::write: the tensor must be",
              other.name.view(), "own plan"));
  CHECK(holds(refused([&] { (void)net.read(other); }), "kd::network::read: the tensor must be", other.name.view()));
  CHECK(holds(refused([&] { (void)net.read_gradient(other); }), "kd::network::read: the tensor must be", "own plan"));
  for (const auto& info : tiny::plan::tensors)
    if (!info.spec.trainable)
      CHECK(holds(refused([&] { (void)net.read_gradient(info); }), "must be a trainable one", info.name.view()));
}

TEST_CASE("misuse: an update without the optimiser's states", "[misuse][network]") {
  std::vector<float> w(8), g(8), m(8);
  const auto message = [&]<class Rule>(const Rule& rule, const kd::optim::state_buffers<Rule>& states) {
    return refused([&] { kd::cpu::update({1}, rule, 0.1, 1, w.size(), w.data(), g.data(), states); });
  };
  CHECK(holds(message(kd::optim::adam{}, {nullptr, m.data()}), "kd::cpu::update: adam ", "a null pointer",
              "reads weights, gradients and 2 arrays"));
  CHECK(holds(message(kd::optim::adamw{}, {m.data()}), "kd::cpu::update: adamw ", "a null pointer",
              "reads weights, gradients and 2 arrays"));
  CHECK(holds(message(kd::optim::lion{}, {}), "kd::cpu::update: lion ", "a null pointer"));
  CHECK(holds(message(kd::optim::sgd{.momentum = 0.9}, {}),
              "kd::cpu::update: sgd reads weights, gradients and 1 arrays", "a null pointer"));
  CHECK(message(kd::optim::sgd{}, {}) == "nothing was thrown");
  CHECK(message(kd::optim::sgd{.momentum = 0.9}, {m.data()}) == "nothing was thrown");
}

TEST_CASE("misuse: a network that another thread holds", "[misuse][network][threads]") {
  device cpu(1);
  tiny net(cpu, 1);
  const auto set = quadrants(32, 8);
  kd::train::trainer<tiny, kd::cross_entropy, kd::optim::adam> one(net, set, {}, {}, {.batch_size = 16});
  std::vector<std::string> messages;
  {
    const auto mine = net.use();
    CHECK_NOTHROW(kd::train::predict(net, set.test.images));  // the same thread may go on
    std::thread([&] {
      messages.push_back(refused([&] { (void)kd::train::predict(net, set.test.images); }));
      messages.push_back(refused([&] { one.run_epoch(); }));
      messages.push_back(refused([&] { (void)net.input(4, false); }));
      messages.push_back(refused([&] { net.initialise(3); }));
      messages.push_back(refused([&] { (void)net.read(tiny::plan::tensors[0]); }));
    }).join();
  }
  REQUIRE(messages.size() == 5);
  for (const std::string& message : messages)
    CHECK(message ==
          "kd::network: one thread may use it at a time, received a call while another thread uses it; "
          "give each thread an object of its own");
  std::string after;
  std::thread([&] { after = refused([&] { (void)kd::train::predict(net, set.test.images); }); }).join();
  CHECK(after == "nothing was thrown");
  // A network that moves away while it is held arrives free, and the hold ends without harm.
  auto held = net.use();
  tiny moved = std::move(net);
  std::thread([&] { after = refused([&] { (void)kd::train::predict(moved, set.test.images); }); }).join();
  CHECK(after == "nothing was thrown");
}

TEST_CASE("misuse: one network in two threads gives right answers or the error", "[misuse][network][threads]") {
  device cpu(1);
  tiny net(cpu, 1);
  const auto set = quadrants(8, 64);
  const auto want = kd::train::predict(net, set.test.images);
  std::atomic<int> right{0}, refusals{0}, wrong{0};
  const auto work = [&] {
    for (int i = 0; i < 200; ++i) {
      try {
        const auto got = kd::train::predict(net, set.test.images);
        ++(std::equal(got.elements().begin(), got.elements().end(), want.elements().begin()) ? right : wrong);
      } catch (const kd::argument_error&) {
        ++refusals;
      }
    }
  };
  std::thread first(work), second(work);
  first.join();
  second.join();
  CHECK(wrong == 0);
  CHECK(right > 0);
  CHECK(right + refusals == 400);
}

TEST_CASE("two threads with a network each may share a device", "[misuse][network][threads]") {
  device cpu(2);
  tiny a(cpu, 1), b(cpu, 1);
  const auto set = quadrants(8, 64);
  const auto want = kd::train::predict(a, set.test.images);
  std::atomic<int> wrong{0};
  const auto work = [&](tiny& net) {
    for (int i = 0; i < 50; ++i) {
      const auto got = kd::train::predict(net, set.test.images);
      wrong += !std::equal(got.elements().begin(), got.elements().end(), want.elements().begin());
    }
  };
  std::thread first([&] { work(a); }), second([&] { work(b); });
  first.join();
  second.join();
  CHECK(wrong == 0);
}
