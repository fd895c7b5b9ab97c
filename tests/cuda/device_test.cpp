/// The CUDA device as a program chooses it, and what it refuses.
#include <kd/kd.hpp>

#include <stdexcept>
#include <string>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/message.hpp"
#include "support/tiny.hpp"

using namespace kd_test;

namespace {

/// A layer of its own, so that the network has one.
struct doubling : nn::layer_base {
  static constexpr kd::shape output(kd::shape in) { return in; }
  struct twice {
    const float* x;
    float* y;
    KD_HOST_DEVICE void operator()(std::size_t i) const { y[i] = 2 * x[i]; }
  };
  template <kd::shape In, nn::fusion, class Device>
  static void forward(Device& device, const nn::forward_pass& p) {
    device.for_each(Device::padded(p.batch) * In.size(), twice{p.x, p.y});
  }
  template <kd::shape In, nn::fusion, class Device>
  static void backward(Device& device, const nn::backward_pass& p) {
    device.for_each(Device::padded(p.batch) * In.size(), twice{p.dy, p.dx});
  }
};
using WithOwnLayer = nn::sequential<kd::image<3, 8, 8>, doubling, nn::flatten, nn::linear<4>>;
using WithoutOwnLayer = nn::sequential<kd::image<3, 8, 8>, nn::flatten, nn::linear<4>>;

}  // namespace

TEST_CASE("cuda with_device: cuda and auto give the GPU, which says what it is", "[cuda][device]") {
  for (const char* choice : {"cuda", "auto"}) {
    std::string name, description;
    kd::with_device({.device = choice, .precision = kd::precision::tf32}, [&](auto& device) {
      name = device.name;
      description = device.description();
    });
    CHECK(name == "cuda");
    CHECK(holds(description, "compute capability", "CUDA", "tf32"));
  }
}

TEST_CASE("cuda network: layers of one's own give what they give on the CPU, and refuse bf16", "[cuda][device]") {
  const auto set = quadrants(16, 8);
  const auto logits = [&](auto& device, auto model) {
    kd::network<typename decltype(model)::type, std::remove_reference_t<decltype(device)>> net(device, 3);
    return kd::train::predict(net, set.test.images);
  };
  kd::cuda::device gpu;
  kd::cpu::device cpu(1);
  const auto got = logits(gpu, std::type_identity<WithOwnLayer>{});
  const auto want = logits(cpu, std::type_identity<WithOwnLayer>{});
  CHECK(near(got.elements(), want.elements(), {.of_largest = 1e-5}));
  const auto other = logits(cpu, std::type_identity<WithoutOwnLayer>{});
  CHECK(near(got.elements(), other.elements(), {.of_largest = 0.1}).differs());

  kd::cuda::device half({.precision = kd::precision::bf16});
  CHECK(holds(message_of<kd::argument_error>([&] { kd::network<WithOwnLayer, kd::cuda::device> net(half, 3); }),
              "layers of your own", "fp32 or tf32"));
  CHECK_NOTHROW(kd::network<WithoutOwnLayer, kd::cuda::device>(half, 3));
}

TEST_CASE("cuda replay: after a first step that threw, the next one runs at once and is not recorded",
          "[cuda][device][graph]") {
  kd::cuda::device gpu;
  kd::cuda::device::recordings known;
  kd::cuda::buffer<int> scratch;
  bool stop = true;
  int runs = 0;
  const auto step = [&] {
    if (stop) throw std::runtime_error("stop");
    if (scratch.size() == 0) scratch = kd::cuda::buffer<int>(4);  // refused while a graph is recorded
    kd::cuda::fill_zero(gpu.stream(), scratch.data(), 4);
    ++runs;
  };
  const auto replay = [&] { gpu.replay(known, {1, 0, 0}, step); };
  CHECK_THROWS_AS(replay(), std::runtime_error);
  stop = false;
  CHECK_NOTHROW(replay());
  CHECK(runs == 1);
  CHECK_NOTHROW(replay());  // recorded
  CHECK(runs == 2);
  CHECK_NOTHROW(replay());  // launched
  CHECK(runs == 2);
}

#if defined(KD_SIMT)

TEST_CASE("cuda with_device: without a GPU auto takes the CPU and cuda says why not", "[cuda][device][error]") {
  simt::reset_device();
  simt::device().devices = 0;
  std::string name;
  const auto use = [&](auto& device) { name = device.name; };
  kd::with_device({.device = "auto"}, use);
  CHECK(name == "cpu");
  CHECK(holds(message_of<kd::device_error>([&] { kd::with_device({.device = "cuda"}, use); }),
              "no NVIDIA GPU is visible", "--device cpu"));
  simt::reset_device();
}

TEST_CASE("cuda network: out of memory leaves device and earlier networks usable", "[cuda][device][error]") {
  simt::reset_device();
  kd::cuda::device gpu;
  kd::network<WithoutOwnLayer, kd::cuda::device> net(gpu, 1);
  simt::fail_next("cudaMalloc", cudaErrorMemoryAllocation);
  CHECK(holds(message_of<kd::device_error>([&] { kd::network<WithoutOwnLayer, kd::cuda::device> other(gpu, 1); }),
              "cudaMalloc of", "use a smaller batch"));
  const auto set = quadrants(16, 8);
  CHECK(kd::train::evaluate(net, set.test).samples == 8);
  simt::reset_device();
}

#endif
