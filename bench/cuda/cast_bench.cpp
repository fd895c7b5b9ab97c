/// Conversion between float and bfloat16 on a GPU beside a device-to-device copy of the bytes that it moves.
#include "kd/cuda/cast.hpp"

#include "cuda/rotated_sets.hpp"

namespace {

using namespace kd_bench;

template <class From, class To>
void add(std::size_t n) {
  const auto bytes = static_cast<double>(n * (sizeof(From) + sizeof(To)));
  const std::string name = kd::text("cast/cuda/", type_name<From>, "_to_", type_name<To>, "/", n);
  add_benchmark(name, bytes, [n, bytes](benchmark::State& state) {
    const kd::cuda::stream s;
    std::vector<kd::cuda::buffer<From>> from;
    std::vector<kd::cuda::buffer<To>> to;
    for (std::size_t i = 0; i < sets_of(bytes); ++i) {
      from.push_back(filled<From>(s, n, 1));
      to.emplace_back(n);
    }
    time_sets(state, s, from.size(), bytes,
              [&](std::size_t i) { kd::cuda::cast<From, To>(s, n, from[i].data(), to[i].data()); });
  });
}

// A 3x3 weight of 512 x 512, LightNN's first image at batch 128, the weights of ResNet18.
const bool added = [] {
  for (const std::size_t n : {std::size_t{2'359'296}, std::size_t{128 * 16 * 32 * 32}, std::size_t{11'181'642}}) {
    add<float, bfloat16>(n);
    add<bfloat16, float>(n);
  }
  return true;
}();

}  // namespace
