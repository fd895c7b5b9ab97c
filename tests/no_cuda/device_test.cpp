/// The CUDA device of a program without CUDA: same names, clear errors, and the CPU where it may choose.
#include <kd/kd.hpp>

#include <type_traits>

#include "support/catch.hpp"
#include "support/message.hpp"

using namespace kd_test;

TEST_CASE("no_cuda device: programs that name it compile, and its constructor says what to do", "[no_cuda][errors]") {
  static_assert(std::is_same_v<kd::cuda::device, kd::no_cuda::device>);
  // Compiled, never called.
  [[maybe_unused]] const auto train = [](const kd::data::dataset& set) {
    kd::cuda::device device;
    kd::network<kd::models::SimpleNN, kd::cuda::device> student(device, 1);
    kd::network<kd::models::LightNN, kd::cuda::device> teacher(device, 1);
    kd::train::distil(student, teacher, set, kd::distillation{}, kd::optim::adam{}, {.epochs = 1});
    return kd::train::evaluate(student, set.test).top1;
  };
  const std::string message = message_of<kd::device_error>([] { kd::cuda::device device({.index = 1}); });
  CHECK(holds(message, "kd::cuda", "built without CUDA", "--device cpu"));
}

TEST_CASE("with_device: auto takes the CPU, cuda and unknown names are refused", "[no_cuda][device][errors]") {
  std::string name;
  int threads = 0;
  kd::with_device({.device = "auto", .threads = 3}, [&](auto& device) {
    name = device.name;
    if constexpr (requires { device.threads(); }) threads = device.threads().threads;
  });
  CHECK(name == "cpu");
  CHECK(threads == 3);
  bool called = false;
  const auto use = [&](auto&) { called = true; };
  CHECK(holds(message_of<kd::device_error>([&] { kd::with_device({.device = "cuda"}, use); }), "built without CUDA"));
  CHECK(holds(message_of<kd::argument_error>([&] { kd::with_device({.device = "gpu"}, use); }), "cpu, cuda or auto",
              "received gpu"));
  CHECK(holds(message_of<kd::argument_error>(
                  [&] { kd::with_device({.device = "cpu", .precision = kd::precision::bf16}, use); }),
              "fp32", "received bf16", "--device cuda"));
  CHECK_FALSE(called);
}

TEST_CASE("precision: names, and a list of them for another", "[no_cuda][precision][errors]") {
  for (const kd::precision p : {kd::precision::fp32, kd::precision::tf32, kd::precision::bf16})
    CHECK(kd::precision_of(kd::text_of(p)) == p);
  CHECK(holds(message_of<kd::argument_error>([] { kd::precision_of("fp16"); }), "fp32, tf32 or bf16", "received fp16"));
}
