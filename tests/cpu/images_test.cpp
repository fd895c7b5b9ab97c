#include "kd/cpu/images.hpp"

#include <cmath>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"

namespace {

using kd::cpu::lanes;

std::vector<std::uint8_t> random_images(std::size_t bytes) {
  std::vector<std::uint8_t> v(bytes);
  for (std::size_t i = 0; i < bytes; ++i)
    v[i] = static_cast<std::uint8_t>(
        kd::random_at(11, kd::random_stream::synthetic_data, static_cast<std::uint32_t>(i))[0] >> 24);
  return v;
}

std::vector<std::uint32_t> some_indices(std::size_t count, std::uint32_t samples) {
  std::vector<std::uint32_t> v(count);
  for (std::size_t i = 0; i < count; ++i) v[i] = static_cast<std::uint32_t>((i * 7 + 3) % samples);
  return v;
}

// Straight from the definition, in float64: pad, crop, mirror, normalise.
double wanted(const std::vector<std::uint8_t>& images, const kd::shape& s, std::uint32_t sample, std::size_t c,
              std::size_t h, std::size_t w, const kd::normalisation& norm, const kd::augmentation& augment,
              std::uint64_t seed, std::uint32_t epoch) {
  const auto words = kd::random_at(seed, kd::random_stream::augmentation, sample, epoch);
  const auto offsets = static_cast<std::uint32_t>(2 * augment.crop_padding + 1);
  if (augment.flip && (words[2] & 1u)) w = s.width - 1 - w;
  const long pad = static_cast<long>(augment.crop_padding);
  const long y = static_cast<long>(h) + kd::uniform_below(words[0], offsets) - pad;
  const long x = static_cast<long>(w) + kd::uniform_below(words[1], offsets) - pad;
  double pixel = 0;
  if (y >= 0 && y < static_cast<long>(s.height) && x >= 0 && x < static_cast<long>(s.width))
    pixel = images[((sample * s.channels + c) * s.height + static_cast<std::size_t>(y)) * s.width +
                   static_cast<std::size_t>(x)];
  const std::size_t colour = c < 2 ? c : 2;
  return (pixel / 255 - norm.mean[colour]) / norm.std[colour];
}

}  // namespace

TEST_CASE("images: gather, crop, flip and normalisation match the float64 definition", "[cpu][images]") {
  constexpr std::uint32_t samples = 9;
  const kd::shape shapes[] = {kd::image_shape(3, 32, 32), kd::image_shape(1, 5, 7), kd::image_shape(4, 3, 17),
                              kd::image_shape(3, 1, 40), kd::image_shape(3, 1, 1)};
  const kd::augmentation augmentations[] = {{}, {4, true}, {2, false}, {0, true}, {40, true}};
  for (const kd::shape& s : shapes) {
    const auto images = random_images(samples * s.size());
    for (const auto& augment : augmentations)
      for (const std::size_t count : {1, 15, 17, 33}) {
        CAPTURE(kd::text_of(s), augment.crop_padding, augment.flip, count);
        const auto indices = some_indices(count, samples);
        const kd::image_batch batch{images.data(), s, indices.data(), count};
        std::vector<float> out(kd::cpu::storage_size(s, count), 77.0f), two = out;
        kd::cpu::gather_images({1}, batch, kd::cifar10_normalisation, augment, 5, 3, out.data());
        kd::cpu::gather_images({2}, batch, kd::cifar10_normalisation, augment, 5, 3, two.data());
        CHECK(out == two);
        // Values up to 2.2 in magnitude, three float roundings; 0 beyond the batch.
        kd_test::comparison pixels("pixel");
        for (std::size_t n = 0; n < kd::cpu::blocks_of(count) * lanes; ++n)
          for (std::size_t c = 0; c < s.channels; ++c)
            for (std::size_t h = 0; h < s.height; ++h)
              for (std::size_t w = 0; w < s.width; ++w) {
                const std::size_t at =
                    (((n / lanes * s.height + h) * s.width + w) * s.channels + c) * lanes + n % lanes;
                if (n < count)
                  pixels.add(out.at(at),
                             wanted(images, s, indices[n], c, h, w, kd::cifar10_normalisation, augment, 5, 3), 1e-6,
                             at);
                else
                  pixels.add(out.at(at), 0, 0, at);
              }
        CHECK(pixels);
      }
  }
}

TEST_CASE("images: augmentation depends on seed, sample and epoch alone", "[cpu][images]") {
  const kd::shape s = kd::image_shape(3, 8, 16);
  const auto images = random_images(20 * s.size());
  const std::vector<std::uint32_t> one{13}, many{4, 13, 5};
  const auto gather = [&](const std::vector<std::uint32_t>& indices, std::uint64_t seed, std::uint32_t epoch) {
    std::vector<float> out(kd::cpu::storage_size(s, indices.size()));
    kd::cpu::gather_images({1}, {images.data(), s, indices.data(), indices.size()}, kd::imagenet_normalisation,
                           {4, true}, seed, epoch, out.data());
    return out;
  };
  const auto alone = gather(one, 1, 0), within = gather(many, 1, 0);
  std::size_t differing = 0, other_epoch = 0, other_seed = 0;
  const auto epoch1 = gather(one, 1, 1), seed2 = gather(one, 2, 0);
  for (std::size_t v = 0; v < s.size(); ++v) {
    differing += alone[v * lanes] != within[v * lanes + 1];
    other_epoch += alone[v * lanes] != epoch1[v * lanes];
    other_seed += alone[v * lanes] != seed2[v * lanes];
  }
  CHECK(differing == 0);
  CHECK(other_epoch > 0);
  CHECK(other_seed > 0);
}

TEST_CASE("images: a standard deviation that is not positive is refused", "[cpu][images]") {
  const kd::shape s = kd::image_shape(3, 2, 2);
  const std::vector<std::uint8_t> images(s.size());
  const std::uint32_t index = 0;
  std::vector<float> out(kd::cpu::storage_size(s, 1));
  const kd::image_batch batch{images.data(), s, &index, 1};
  for (const float bad : {0.0f, -1.0f, std::nanf("")})
    CHECK_THROWS_AS(kd::cpu::gather_images({1}, batch, {{0, 0, 0}, {1, bad, 1}}, {}, 0, 0, out.data()),
                    kd::argument_error);
}

TEST_CASE("images: of a normalisation only the entries of the image's channels count", "[cpu][images]") {
  const kd::shape s = kd::image_shape(1, 1, 2);
  const std::vector<std::uint8_t> images{0, 255};
  const std::uint32_t index = 0;
  std::vector<float> out(kd::cpu::storage_size(s, 1));
  kd::cpu::gather_images({1}, {images.data(), s, &index, 1}, {{0.5f}, {0.25f}}, {}, 0, 0, out.data());
  CHECK(kd_test::near(out[0], -2, {.absolute = 1e-6}));
  CHECK(kd_test::near(out[lanes], 2, {.absolute = 1e-6}));
}
