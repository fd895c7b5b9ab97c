/// Gathering, cropping, mirroring and normalising a batch of 8-bit images on a GPU beside a device-to-device copy of
/// the bytes that it moves: one read and sizeof(T) written for each element.
#include "kd/cuda/images.hpp"

#include "cuda/rotated_sets.hpp"

namespace {

using namespace kd_bench;

template <class T>
void add(const kd::shape& size, std::size_t batch, bool augmented) {
  const auto bytes = static_cast<double>(batch * size.size() * (1 + sizeof(T)));
  const std::string name = kd::text("gather_images/cuda/", type_name<T>, "/", batch, "x", kd::text_of(size),
                                    augmented ? "/crop_and_flip" : "");
  add_benchmark(name, bytes, [size, batch, augmented, bytes](benchmark::State& state) {
    const kd::cuda::stream s;
    const std::size_t sets = sets_of(bytes), samples = sets * batch;
    std::vector<std::uint8_t> host(samples * size.size());
    for (std::size_t i = 0; i < host.size(); ++i) host[i] = static_cast<std::uint8_t>(i * 31 % 251);
    // Every sample once, neighbours of the batch far apart in memory.
    std::vector<std::uint32_t> order(samples);
    for (std::size_t i = 0; i < samples; ++i) order[i] = static_cast<std::uint32_t>(i % sets * batch + i / sets);
    kd::cuda::buffer<std::uint8_t> images(host.size());
    kd::cuda::buffer<std::uint32_t> indices(samples);
    kd::cuda::upload(s, host.data(), host.size(), images.data());
    kd::cuda::upload(s, order.data(), samples, indices.data());
    std::vector<kd::cuda::buffer<T>> out;
    for (std::size_t i = 0; i < sets; ++i) out.emplace_back(batch * size.size());
    const kd::augmentation augment{augmented ? 4u : 0u, augmented};
    time_sets(state, s, sets, bytes, [&](std::size_t i) {
      kd::cuda::gather_images<T>(s, images.data(), size, indices.data() + i * batch, batch, kd::cifar10_normalisation,
                                 augment, 1, 2, nullptr, out[i].data());
    });
  });
}

// Training batches of CIFAR-10, a large batch, and ImageNet's size.
const bool added = [] {
  for (const bool augmented : {false, true}) {
    for (const std::size_t batch : {128u, 1024u}) {
      add<float>(kd::image_shape(3, 32, 32), batch, augmented);
      add<bfloat16>(kd::image_shape(3, 32, 32), batch, augmented);
    }
    add<float>(kd::image_shape(3, 224, 224), 64, augmented);
    add<bfloat16>(kd::image_shape(3, 224, 224), 64, augmented);
  }
  return true;
}();

}  // namespace
