/// The beginning of a training step on a GPU: the step's scalars, and indices, labels and cached logits of its batch;
/// beside a device-to-device copy of the bytes that it moves.
#include "kd/cuda/step.hpp"

#include "cuda/rotated_sets.hpp"

namespace {

using namespace kd_bench;

/// @param classes 0 for no teacher
void add(std::size_t count, std::size_t classes) {
  const auto bytes = static_cast<double>(2 * sizeof(kd::kernel::step_scalars) + count * (16 + 8 * classes));
  const std::string teacher = classes == 0 ? std::string("no_teacher") : kd::text("teacher_of_", classes);
  add_benchmark(kd::text("begin_step/cuda/", count, "/", teacher), bytes, [=](benchmark::State& state) {
    const kd::cuda::stream s;
    const std::size_t sets = sets_of(bytes), samples = sets * count;
    // Every sample once, neighbours of the batch far apart in memory. Each set is an epoch of one step.
    std::vector<kd::kernel::step_scalars> scalars(sets);
    std::vector<std::uint32_t> host_order(samples);
    for (std::size_t i = 0; i < sets; ++i) scalars[i].first = static_cast<std::uint32_t>(i * count);
    for (std::size_t i = 0; i < samples; ++i) host_order[i] = static_cast<std::uint32_t>(i % sets * count + i / sets);
    kd::cuda::buffer<kd::kernel::step_scalars> table(sets), current(sets);
    kd::cuda::buffer<std::uint32_t> position(sets), order(samples), indices(samples);
    kd::cuda::upload(s, scalars.data(), sets, table.data());
    kd::cuda::upload(s, host_order.data(), samples, order.data());
    const auto labels = zeros<std::int32_t>(s, samples);
    const auto logits = filled<float>(s, samples * classes, 2);
    kd::cuda::buffer<std::int32_t> batch_labels(samples);
    kd::cuda::buffer<float> rows(samples * classes);
    time_sets(state, s, sets, bytes, [&](std::size_t i) {
      // Each launch of the graph begins all epochs again; the one memset is shared by all sets.
      if (i == 0) kd::cuda::fill_zero(s, position.data(), sets);
      kd::cuda::begin_step(s, table.data() + i, position.data() + i, current.data() + i, order.data(), labels.data(),
                           classes == 0 ? nullptr : logits.data(), classes, count, indices.data() + i * count,
                           batch_labels.data() + i * count, rows.data() + i * count * classes);
    });
  });
}

// Labels alone; cached logits of CIFAR-10 and CIFAR-100; of 1,000 classes, whose rows are a second launch.
const bool added = [] {
  for (const std::size_t classes : {0u, 10u, 100u, 1000u}) add(128, classes);
  add(1024, 10);
  return true;
}();

}  // namespace
