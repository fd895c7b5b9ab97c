#include "kd/cuda/images.hpp"

#include <cmath>
#include <cstdint>
#include <vector>

#include "kd/cpu/images.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/guarded_array.hpp"
#include "support/message.hpp"

namespace {

using kd::kernel::bfloat16;
using kd_test::guarded_array;

constexpr std::uint32_t samples = 9;

std::vector<std::uint8_t> random_images(std::size_t bytes) {
  std::vector<std::uint8_t> v(bytes);
  for (std::size_t i = 0; i < bytes; ++i)
    v[i] = static_cast<std::uint8_t>(
        kd::random_at(11, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i))[0] >> 24);
  return v;
}

std::vector<std::uint32_t> some_indices(std::size_t count) {
  std::vector<std::uint32_t> v(count);
  for (std::size_t i = 0; i < count; ++i) v[i] = static_cast<std::uint32_t>((i * 7 + 3) % samples);
  return v;
}

/// The CPU device's batch in [sample][H][W][C].
std::vector<float> on_cpu(const std::vector<std::uint8_t>& images, const kd::shape& size,
                          const std::vector<std::uint32_t>& indices, const kd::augmentation& augment,
                          std::uint64_t seed, std::uint32_t epoch) {
  constexpr std::size_t lanes = kd::cpu::lanes;
  std::vector<float> blocked(kd::cpu::storage_size(size, indices.size())), out(indices.size() * size.size());
  kd::cpu::gather_images({1}, {images.data(), size, indices.data(), indices.size()}, kd::cifar10_normalisation, augment,
                         seed, epoch, blocked.data());
  for (std::size_t n = 0; n < indices.size(); ++n)
    for (std::size_t v = 0; v < size.size(); ++v)
      out[n * size.size() + v] = blocked[(n / lanes * size.size() + v) * lanes + n % lanes];
  return out;
}

template <class T>
std::vector<float> on_gpu(const kd::cuda::stream& s, const std::vector<std::uint8_t>& images, const kd::shape& size,
                          const std::vector<std::uint32_t>& indices, const kd::augmentation& augment,
                          std::uint64_t seed, std::uint32_t epoch, std::uint32_t more_epochs, std::size_t shift = 0) {
  guarded_array<std::uint8_t> device_images(s, images);
  guarded_array<std::uint32_t> device_indices(s, indices), counter(s, std::vector<std::uint32_t>{more_epochs});
  guarded_array<T> out(s, indices.size() * size.size(), shift);
  kd::cuda::gather_images(s, device_images.data(), size, device_indices.data(), indices.size(),
                          kd::cifar10_normalisation, augment, seed, epoch, more_epochs == 0 ? nullptr : counter.data(),
                          out.data());
  return kd_test::to_floats(out.values());
}

const kd::shape shapes[] = {kd::image_shape(3, 32, 32), kd::image_shape(1, 5, 7),  kd::image_shape(4, 3, 17),
                            kd::image_shape(3, 1, 40),  kd::image_shape(3, 1, 1),  kd::image_shape(3, 3, 3),
                            kd::image_shape(5, 4, 4),   kd::image_shape(1, 1, 256)};
const kd::augmentation augmentations[] = {{}, {4, true}, {2, false}, {0, true}, {40, true}};

}  // namespace

TEST_CASE("cuda gather_images: the CPU's crops, mirrorings and values", "[cuda][images]") {
  const kd::cuda::stream s;
  for (const kd::shape& size : shapes) {
    const auto images = random_images(samples * size.size());
    for (const auto& augment : augmentations)
      for (const std::size_t count : {1u, 3u, 5u}) {
        CAPTURE(kd::text_of(size), augment.crop_padding, augment.flip, count);
        const auto indices = some_indices(count);
        const auto want = on_cpu(images, size, indices, augment, 5, 3);
        const auto got = on_gpu<float>(s, images, size, indices, augment, 5, 3, 0);
        const auto half = on_gpu<bfloat16>(s, images, size, indices, augment, 5, 1, 2);
        // Two roundings of numbers up to 2.7, where the CPU is built without FMA; one grey level is at least 0.014.
        CHECK(kd_test::near(got, want, {.absolute = 5e-7}));
        CHECK(kd_test::near(half, got, {.relative = kd_test::rounding<bfloat16>}));
      }
  }
}

TEST_CASE("cuda gather_images: a value is one fused multiply and add", "[cuda][images]") {
  const kd::cuda::stream s;
  const kd::shape size = kd::image_shape(4, 8, 8);  // the fourth channel takes the third colour's constants
  const auto images = random_images(samples * size.size());
  const auto indices = some_indices(5);
  const auto got = on_gpu<float>(s, images, size, indices, {}, 0, 0, 0);
  const auto& norm = kd::cifar10_normalisation;
  std::size_t wrong = 0;
  kd_test::comparison pixels("pixel");
  for (std::size_t n = 0; n < 5; ++n)
    for (std::size_t p = 0; p < 64; ++p)
      for (std::size_t c = 0; c < 4; ++c) {
        const std::size_t colour = c < 2 ? c : 2;
        const float pixel = images[(indices[n] * 4 + c) * 64 + p], value = got.at((n * 64 + p) * 4 + c);
        wrong += value != std::fmaf(pixel, 1.0f / (255.0f * norm.std[colour]), -norm.mean[colour] / norm.std[colour]);
        const double want = (double{pixel} / 255 - double{norm.mean[colour]}) / double{norm.std[colour]};
        pixels.add(value, want, 1e-6);
      }
  CHECK(wrong == 0);
  CHECK(pixels);
}

TEST_CASE("cuda gather_images: any alignment of the output gives the same bits", "[cuda][images]") {
  const kd::cuda::stream s;
  const kd::shape size = kd::image_shape(3, 8, 8);
  const auto images = random_images(samples * size.size());
  const auto indices = some_indices(4);
  const auto aligned = on_gpu<float>(s, images, size, indices, {2, true}, 8, 1, 0);
  CHECK(on_gpu<float>(s, images, size, indices, {2, true}, 8, 1, 0, 1) == aligned);
  const auto half = on_gpu<bfloat16>(s, images, size, indices, {2, true}, 8, 1, 0);
  CHECK(on_gpu<bfloat16>(s, images, size, indices, {2, true}, 8, 1, 0, 3) == half);
}

TEST_CASE("cuda gather_images: bad arguments are refused, an empty batch launches nothing", "[cuda][images]") {
  const kd::cuda::stream s;
  const kd::shape size = kd::image_shape(3, 2, 2);
  float* const none = nullptr;
  kd::cuda::gather_images(s, nullptr, size, nullptr, 0, kd::cifar10_normalisation, {}, 0, 0, nullptr, none);
  for (const float bad : {0.0f, -1.0f, std::nanf("")}) {
    const auto message = kd_test::message_of<kd::argument_error>([&] {
      kd::cuda::gather_images(s, nullptr, size, nullptr, 1, {{0, 0, 0}, {1, bad, 1}}, {}, 0, 0, nullptr, none);
    });
    CHECK(kd_test::holds(message, "kd::cuda::gather_images", "standard deviation"));
  }
  // Of one channel only the first entries count.
  kd::cuda::gather_images(s, nullptr, kd::image_shape(1, 2, 2), nullptr, 0, {{0.5f}, {0.25f}}, {}, 0, 0, nullptr, none);
  const auto message = kd_test::message_of<kd::argument_error>([&] {
    kd::cuda::gather_images(s, nullptr, size, nullptr, 1, kd::cifar10_normalisation, {std::size_t{1} << 31, false}, 0,
                            0, nullptr, none);
  });
  CHECK(kd_test::holds(message, "crop_padding", "2147483648"));
}
