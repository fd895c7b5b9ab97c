/// What is said when the GPU cannot be used. The emulation pretends the machines; on a GPU only what can be had there
/// is tested.
#include "kd/cuda/error.hpp"

#include <cstddef>
#include <string>

#include "kd/cuda/buffer.hpp"
#include "kd/cuda/select_device.hpp"
#include "support/catch.hpp"
#include "support/message.hpp"

namespace {

using kd::precision;
using kd::cuda::select_device;
using kd_test::holds;

std::string refusal(int index = 0, precision p = precision::fp32) {
  return kd_test::message_of<kd::device_error>([&] { select_device(index, p); });
}

}  // namespace

TEST_CASE("cuda error: an error says operation, name, text and remedy; success says nothing", "[cuda][error]") {
  CHECK_NOTHROW(kd::cuda::check(cudaSuccess, "cudaAnything"));
  const auto message = [](cudaError_t code) {
    return kd_test::message_of<kd::device_error>([&] { kd::cuda::check(code, "cudaAnything"); });
  };
  CHECK(holds(message(cudaErrorMemoryAllocation), "kd::cuda: cudaAnything failed: cudaErrorMemoryAllocation (",
              "use a smaller batch"));
  CHECK(holds(message(cudaErrorInsufficientDriver), "cudaErrorInsufficientDriver", "install an NVIDIA driver"));
  CHECK(holds(message(cudaErrorNoDevice), "cudaErrorNoDevice", "CUDA_VISIBLE_DEVICES"));
  CHECK(holds(message(cudaErrorInvalidDevice), "cudaErrorInvalidDevice", "nvidia-smi -L"));
  CHECK(holds(message(cudaErrorNoKernelImageForDevice), "cudaErrorNoKernelImageForDevice",
              "-DCMAKE_CUDA_ARCHITECTURES=native"));
  CHECK(holds(message(cudaErrorIllegalAddress), "cudaErrorIllegalAddress", "compute-sanitizer"));
  CHECK(holds(message(cudaErrorStreamCaptureUnsupported), "do the step once before it is recorded"));
  CHECK(holds(message(cudaErrorUnknown), "cudaErrorUnknown", "documentation"));
}

TEST_CASE("cuda error: out of memory says how much was asked for and how much is free", "[cuda][error]") {
  // More than any GPU has.
  const auto message = kd_test::message_of<kd::device_error>([] { kd::cuda::buffer<float> b(std::size_t{1} << 44); });
  CHECK(holds(message, "cudaMalloc of 70368744177664 bytes", "are free", "cudaErrorMemoryAllocation",
              "use a smaller batch"));
  // The error is told once: what follows does not meet it.
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK_NOTHROW(kd::cuda::buffer<float>(10));
}

TEST_CASE("cuda select_device: says what it found", "[cuda][device]") {
  const auto found = select_device(0, precision::fp32);
  CHECK(holds(found.description, "(compute capability ", ", CUDA "));
  CHECK(found.major >= 5);
  CHECK(found.memory_bytes > 0);
}

TEST_CASE("cuda select_device: an index that does not exist", "[cuda][device][error]") {
  CHECK(holds(refusal(-1), "the index of the GPU must be 0 to ", "received -1", "nvidia-smi -L"));
  CHECK(holds(refusal(1000), "the index of the GPU must be 0 to ", "received 1000", "CUDA_VISIBLE_DEVICES"));
}

TEST_CASE("cuda select_device: a number that is no precision", "[cuda][device][error]") {
  CHECK(kd_test::message_of<kd::argument_error>([] { select_device(0, static_cast<precision>(3)); }) ==
        "kd::text_of(precision): unknown precision 3");
}

#if defined(KD_SIMT)

TEST_CASE("cuda select_device: machines that cannot serve, each with a remedy", "[cuda][device][error]") {
  const auto on = [](const auto& change, precision p = precision::fp32) {
    simt::reset_device();
    change(simt::device());
    const std::string message = refusal(0, p);
    simt::reset_device();
    return message;
  };
  CHECK(holds(on([](auto& machine) { machine.driver_version = 0; }), "no NVIDIA driver was found",
              "needs one for CUDA 13.0", "install it", "--device cpu"));
  CHECK(holds(on([](auto& machine) { machine.driver_version = 12040; }), "serves CUDA up to 12.4",
              "built with CUDA 13.0", "install a newer driver", "--device cpu"));
  CHECK(holds(on([](auto& machine) { machine.devices = 0; }), "no NVIDIA GPU is visible", "CUDA_VISIBLE_DEVICES",
              "--device cpu"));
  CHECK(holds(on([](auto& machine) {
                machine.major = 7;
                machine.minor = 5;
              }),
              "this program has no code for ", "(compute capability 7.5, CUDA 13.0)",
              "-DCMAKE_CUDA_ARCHITECTURES=native", "--device cpu"));
  for (const precision p : {precision::tf32, precision::bf16})
    CHECK(holds(on(
                    [](auto& machine) {
                      machine.major = 7;
                      machine.oldest_major = 7;
                    },
                    p),
                kd::text("precision ", kd::text_of(p), " needs compute capability 8.0 or later"), "has 7.0",
                "choose precision fp32"));
  // fp32 works there, and so does a driver of the same major version.
  CHECK(on([](auto& machine) {
          machine.major = 7;
          machine.oldest_major = 7;
        }) == "nothing was thrown");
  CHECK(on([](auto& machine) { machine.driver_version = 13000; }) == "nothing was thrown");
  CHECK(refusal() == "nothing was thrown");
}

TEST_CASE("cuda select_device: calls that fail are told by name", "[cuda][device][error]") {
  const auto failing = [](const char* call, cudaError_t code) {
    simt::reset_device();
    simt::fail_next(call, code);
    const std::string message = refusal();
    simt::reset_device();
    return message;
  };
  CHECK(holds(failing("cudaGetDeviceCount", cudaErrorInitializationError),
              "cudaGetDeviceCount failed: ", "cudaErrorInitializationError"));
  CHECK(holds(failing("cudaSetDevice", cudaErrorUnknown), "cudaSetDevice failed: cudaErrorUnknown"));
  CHECK(holds(failing("cudaFuncGetAttributes", cudaErrorUnsupportedPtxVersion), "has no code for",
              "cudaErrorUnsupportedPtxVersion"));
}

#endif
